"""What a killed training needs to go on to the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from bezoar.data import ImageData
from bezoar.train.checkpoint_file import (
    read_checkpoint,
    training_path,
    write_checkpoint,
)

_PREFIX = "momentum."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file with weights, momentum and the number of epochs done.

    It stays when the training is over, so that nothing is lost between the last epoch
    and the file that the network is saved to; ``forget_training`` removes it.

    Attributes:
        path: Where it lies; None keeps nothing.
        key: Names the settings and the data, so that another training is not
            continued by mistake.
    """

    path: Path | None
    key: str

    @classmethod
    def at(
        cls, work_dir: Path | None, *, settings: Mapping[str, object], data: ImageData
    ) -> Checkpoint:
        """Return the checkpoint of one training.

        Args:
            work_dir: Folder of the run, or None.
            settings: All that decides the result besides the data.
            data: The training set.

        Returns:
            The checkpoint; nothing is read or written yet.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(data.images.contiguous().numpy().data)
        digest.update(data.labels.contiguous().numpy().data)
        return cls(path=training_path(work_dir), key=digest.hexdigest())

    def load(self, network: nn.Module, optimizer: Optimizer) -> int:
        """Bring network and optimiser to where the last run stopped.

        Args:
            network: The network in training; changed in place.
            optimizer: Its SGD optimiser; changed in place.

        Returns:
            Epochs done; 0 when there is no checkpoint of this very training. A
            ``StorageError`` follows a file that is damaged.
        """
        found = self.path and read_checkpoint(self.path, key=self.key)
        if not found:
            return 0
        tensors, about = found
        momentum = {k: tensors.pop(k) for k in list(tensors) if k.startswith(_PREFIX)}
        network.load_state_dict(tensors)
        for name, parameter in network.named_parameters():
            if _PREFIX + name in momentum:
                state = momentum[_PREFIX + name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = state
        return int(about["epoch"])

    def save(self, network: nn.Module, optimizer: Optimizer, *, epoch: int) -> None:
        """Write the state after an epoch, whole or not at all.

        Args:
            network: The network in training.
            optimizer: Its SGD optimiser.
            epoch: Epochs done.
        """
        if self.path is None:
            return
        tensors: dict[str, Tensor] = dict(network.state_dict())
        for name, parameter in network.named_parameters():
            state = optimizer.state.get(parameter, {}).get("momentum_buffer")
            if state is not None:
                tensors[_PREFIX + name] = state
        write_checkpoint(self.path, tensors, about={"key": self.key, "epoch": epoch})
