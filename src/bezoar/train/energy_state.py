"""All that a training of an energy is at one update, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bezoar.models.energy import EnergyNet
from bezoar.train.checkpoint_file import (
    read_checkpoint,
    training_path,
    write_checkpoint,
)


@dataclass(kw_only=True)
class EnergyState:
    """Network, mean of the weights, Adam's moments, bank and curves.

    Attributes:
        net: The network in training.
        average: A network whose weights are the mean over the updates.
        adam: Its optimiser.
        bank: Where the chains are, float32 in [-1, 1].
        curves: Figures of the windows so far.
        update: Updates done.
        seconds: Wall-clock time spent on them.
    """

    net: EnergyNet
    average: EnergyNet
    adam: torch.optim.Adam
    bank: Tensor
    curves: list[dict[str, float]]
    update: int = 0
    seconds: float = 0.0

    def save(self, folder: Path, *, key: str) -> None:
        """Write the state, whole or not at all.

        Args:
            folder: The folder of the run.
            key: Names the training, as ``key_of`` gives it.
        """
        tensors = {"bank": self.bank}
        tensors |= {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            tensors |= {
                f"adam.{name}.{k}": v for k, v in self.adam.state[parameter].items()
            }
        about = {
            "key": key,
            "update": self.update,
            "seconds": self.seconds,
            "curves": self.curves,
        }
        write_checkpoint(_path(folder), tensors, about=about)

    def load(self, folder: Path, *, key: str) -> bool:
        """Take the state from a file, if it is of this very training.

        Args:
            folder: The folder of the run.
            key: Names the training.

        Returns:
            Whether there was such a file. A ``StorageError`` follows a file that is
            damaged.
        """
        found = read_checkpoint(_path(folder), key=key)
        if found is None:
            return False
        tensors, about = found
        for name, net in (("net.", self.net), ("average.", self.average)):
            net.load_state_dict(_below(tensors, name))
        for name, parameter in self.net.named_parameters():
            self.adam.state[parameter] = {
                k: v if k == "step" else v.to(parameter.device)
                for k, v in _below(tensors, f"adam.{name}.").items()
            }
        self.bank.copy_(tensors["bank"])
        self.curves += about["curves"]
        self.update, self.seconds = about["update"], about["seconds"]
        return True


def key_of(settings: Mapping[str, object], images: Tensor) -> str:
    """Return a name for a training that no other has.

    Args:
        settings: All that decides the result besides the images.
        images: The training images.

    Returns:
        A hexadecimal name.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(repr(tuple(images.shape)).encode())
    digest.update(images.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _path(folder: Path) -> Path:
    path = training_path(folder, stage="energy")
    assert path is not None
    return path


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
