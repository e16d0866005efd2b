import errno
import os
from pathlib import Path

import pytest

from bezoar.errors import InputError, StorageError
from bezoar.storage import read_json, read_object, write_json


def test_plain_values_come_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, True, None, "ü"], "b": {"c": []}, "large": 2**60}
    write_json(tmp_path / "a" / "x.json", value)
    assert read_json(tmp_path / "a" / "x.json") == value


def test_tuples_paths_and_numbers_beyond_json_are_made_plain(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"t": (1, 2), "p": Path("a/b"), "n": [float("inf")]})
    assert read_json(tmp_path / "x") == {"t": [1, 2], "p": "a/b", "n": [None]}
    assert "Infinity" not in (tmp_path / "x").read_text()


def test_file_names_that_are_no_unicode_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    write_json(tmp_path / "x", [name, "ü"])
    assert read_json(tmp_path / "x") == [name, "ü"]


@pytest.mark.parametrize("value", [{"k": {1, 2}}, {"k": object()}, {"k": {1: 2}}])
def test_what_json_cannot_hold_is_refused_with_its_place(
    value: object, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="at 'k'; convert it first"):
        write_json(tmp_path / "x", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "the number 1e999 is out of range"),
        (b'"\xff"', "invalid start byte"),
        (b"1" * 5000, "digits"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100 + b"]" * 100, "more than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "more than 64 levels"),
        (b"[" + b"1," * 5000, "more than 8192 bytes"),
    ],
)
def test_damaged_files_are_one_clear_sentence(
    content: bytes, found: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    limit = 8192 if "8192" in found else 1 << 20
    with pytest.raises(StorageError, match=found) as caught:
        read_json(tmp_path / "x.json", max_bytes=limit)
    assert str(caught.value).startswith("expected JSON in ")
    assert str(caught.value).endswith("; restore the file or make it anew")


def test_depth_at_the_limit_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"[" * 64 + b"]" * 64)
    assert isinstance(read_json(tmp_path / "x"), list)


def test_a_missing_file_and_a_list_where_an_object_stands_are_said(
    tmp_path: Path,
) -> None:
    with pytest.raises(StorageError, match="No such file"):
        read_json(tmp_path / "x")
    write_json(tmp_path / "x", [1])
    with pytest.raises(StorageError, match="got a list at the top"):
        read_object(tmp_path / "x")


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"got (Not a directory|File exists); choose"
    ):
        write_json(tmp_path / "file" / "x.json", 1)


def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "x", 1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="got No space left on device"):
        write_json(tmp_path / "x", 2)
    monkeypatch.undo()
    assert read_json(tmp_path / "x") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
