from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar.data import Unreadable
from bezoar.engine.blocks import (
    BlockScores,
    block_key,
    block_path,
    finished_blocks,
    read_block,
    write_block,
)
from bezoar.errors import InputError, StorageError
from bezoar.results import Scores

SCORES = Scores(
    ids=("ü", "b", "c"),
    labels=torch.tensor([-1, 3, 0]),
    columns={
        "norm": torch.tensor([0.1, float("nan"), -0.0]),
        "loss": torch.tensor([1 / 3, 0, 1e300], dtype=torch.float64),
    },
)
BAD = (Unreadable(id="d", reason="truncated"), Unreadable(id="e", reason=""))


def assert_same(first: BlockScores | None, second: BlockScores) -> None:
    assert first is not None
    assert first.unreadable == second.unreadable
    assert first.ids == second.ids
    if second.scores is None:
        assert first.scores is None
        return
    assert first.scores is not None
    assert first.scores.labels.equal(second.scores.labels)
    assert list(first.scores.columns) == list(second.scores.columns)
    for name, values in second.scores.columns.items():
        found = first.scores.columns[name]
        assert found.dtype == values.dtype
        assert found.numpy().tobytes() == values.numpy().tobytes()


@pytest.mark.parametrize(
    "block",
    [
        BlockScores(scores=SCORES, unreadable=()),
        BlockScores(scores=SCORES, unreadable=BAD),
        BlockScores(scores=None, unreadable=BAD),
    ],
    ids=["all readable", "some readable", "none readable"],
)
def test_a_block_comes_back_bit_for_bit(block: BlockScores, tmp_path: Path) -> None:
    write_block(tmp_path, 7, block, key="k")
    assert [p.name for p in tmp_path.iterdir()] == ["00000007.parquet"]
    assert_same(read_block(block_path(tmp_path, 7), key="k"), block)
    assert_same(finished_blocks(tmp_path, key="k")[7], block)


def test_any_flipped_bit_means_to_compute_it_again(tmp_path: Path) -> None:
    block = BlockScores(scores=SCORES, unreadable=BAD)
    write_block(tmp_path, 0, block, key="k")
    path = block_path(tmp_path, 0)
    whole = path.read_bytes()
    damaged = 0
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        found = read_block(path, key="k")
        damaged += found is None
        if found is not None:  # a bit that carries nothing, such as a statistic
            assert_same(found, block)
    assert damaged > len(whole) / 7 / 3


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000])
def test_rubbish_means_to_compute_it_again(content: bytes, tmp_path: Path) -> None:
    block_path(tmp_path, 0).write_bytes(content)
    assert finished_blocks(tmp_path, key="k") == {}


def test_blocks_of_another_key_are_refused(tmp_path: Path) -> None:
    write_block(tmp_path, 0, BlockScores(scores=SCORES, unreadable=()), key="k")
    with pytest.raises(
        StorageError, match=r"results of other settings.*--out or remove"
    ):
        finished_blocks(tmp_path, key="l")


def test_leftovers_of_a_killed_run_are_cleared_and_others_kept(tmp_path: Path) -> None:
    for name in (".00000003.parquet.abc", ".lock", "notes.txt", "3.parquet"):
        (tmp_path / name).touch()
    assert finished_blocks(tmp_path, key="k") == {}
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".lock", "3.parquet", "notes.txt"]


def test_the_key_knows_the_rows_of_a_block() -> None:
    keys = {
        block_key(k, block_size=b, image_size=s)
        for k in "ab"
        for b in (1, 2)
        for s in ((2, 3), (3, 2))
    }
    assert len(keys) == 8


def test_common_names_are_refused_with_the_first_block(tmp_path: Path) -> None:
    scores = replace(SCORES, columns={"reason": torch.zeros(3)})
    with pytest.raises(InputError, match=r"got \['reason'\]"):
        write_block(tmp_path, 0, BlockScores(scores=scores, unreadable=()), key="k")


def test_a_folder_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="got Not a directory; choose another --out"):
        finished_blocks(tmp_path / "file", key="k")
