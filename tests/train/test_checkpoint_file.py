"""A checkpoint comes back as it was, or not at all."""

from pathlib import Path

import pytest
import torch

from bezoar.errors import StorageError
from bezoar.train import forget_training
from bezoar.train.checkpoint_file import (
    read_checkpoint,
    training_path,
    write_checkpoint,
)

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(3),
    "c": torch.zeros(0, 2, dtype=torch.bfloat16),
}
ABOUT = {"key": "k", "epoch": 3}


def test_a_checkpoint_comes_back_to_its_own_training_alone(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    assert read_checkpoint(path, key="k") is None
    write_checkpoint(path, TENSORS, about=ABOUT)
    found = read_checkpoint(path, key="k")
    assert found is not None
    assert found[1] == {"epoch": 3}
    torch.testing.assert_close(found[0], TENSORS, atol=0, rtol=0)
    assert read_checkpoint(path, key="other") is None


@pytest.mark.parametrize("place", [0, 9, 40, -1, -9])
def test_one_changed_bit_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "training.safetensors"
    write_checkpoint(path, TENSORS, about=ABOUT)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="remove it to train from the start"):
        read_checkpoint(path, key="k")


def test_what_is_over_can_be_forgotten(tmp_path: Path) -> None:
    for stage in ("", "energy"):
        path = training_path(tmp_path, stage=stage)
        assert path is not None
        path.touch()
    (tmp_path / "model.safetensors").touch()
    forget_training(tmp_path)
    forget_training(None)
    assert training_path(None) is None
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
