from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bezoar.errors import InputError, StorageError
from bezoar.storage import Column, read_table, write_table

COLUMNS: dict[str, Column] = {
    "id": ["ü/1.png", "b", ""],
    "single": torch.tensor([0.1, float("nan"), -0.0]),
    "double": torch.tensor([1 / 3, 1e300, -1.0], dtype=torch.float64),
    "label": torch.tensor([-1, 0, 2**40]),
    "flag": torch.tensor([True, False, True]),
    "array": np.array([1, 2, 3], dtype=np.int16),
    "gaps": ["x", None, "y"],
}


def test_columns_come_back_bit_for_bit(tmp_path: Path) -> None:
    write_table(tmp_path / "t", COLUMNS, metadata={"key": "ü"})
    table = read_table(tmp_path / "t")
    assert list(table.columns) == list(COLUMNS)
    assert table.metadata == {"key": "ü"}
    for name in ("id", "gaps"):
        assert table.columns[name] == COLUMNS[name]
    for name in ("single", "double", "label", "flag", "array"):
        given, found = np.asarray(COLUMNS[name]), table.columns[name]
        assert isinstance(found, torch.Tensor)
        assert found.numpy().dtype == given.dtype
        assert found.numpy().tobytes() == given.tobytes()


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, COLUMNS, metadata={"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_plain_parquet_without_pandas_metadata(tmp_path: Path) -> None:
    write_table(tmp_path / "t", COLUMNS)
    schema = pq.read_schema(tmp_path / "t")
    assert not schema.metadata
    group = pq.ParquetFile(tmp_path / "t").metadata.row_group(0)
    assert {group.column(i).compression for i in range(7)} == {"ZSTD"}


def test_bfloat16_is_kept_as_float32(tmp_path: Path) -> None:
    write_table(tmp_path / "t", {"x": torch.tensor([1 / 3], dtype=torch.bfloat16)})
    found = read_table(tmp_path / "t").columns["x"]
    assert isinstance(found, torch.Tensor)
    assert found.equal(torch.tensor([1 / 3]).bfloat16().float())


def test_uneven_and_mixed_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one length, got {'a': 1, 'b': 2}"):
        write_table(tmp_path / "t", {"a": [1], "b": [1, 2]})
    with pytest.raises(InputError, match="in column 'a'"):
        write_table(tmp_path / "t", {"a": [1, "x"]})
    with pytest.raises(InputError, match="in column 'a'"):
        write_table(tmp_path / "t", {"a": ["\udcff"]})
    assert not list(tmp_path.iterdir())


def test_damage_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table(path, COLUMNS)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"got damage .*; restore the file"):
            read_table(path)
    with pytest.raises(StorageError, match="No such file"):
        read_table(tmp_path / "other")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        write_table(tmp_path / "file" / "t", {"a": [1]})
