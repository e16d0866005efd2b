"""What a killed training needs to go on to the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.errors import StorageError
from bezoar.files import atomic


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file with weights, momentum and the number of epochs done.

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
        digest.update(data.images.numpy().tobytes())
        digest.update(data.labels.numpy().tobytes())
        path = None if work_dir is None else work_dir / "training.safetensors"
        return cls(path=path, key=digest.hexdigest())

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Bring network and optimiser to where the last run stopped.

        Args:
            network: The network in training; changed in place.
            optimizer: Its SGD optimiser; changed in place.

        Returns:
            Epochs done; 0 when there is no checkpoint of this very training.

        Raises:
            StorageError: If the file cannot be read.
        """
        if self.path is None or not self.path.exists():
            return 0
        try:
            tensors = load_file(self.path)
        except Exception as error:  # safetensors has an error type of its own
            raise StorageError(
                f"expected a checkpoint in {str(self.path)!r}, got a damaged file "
                f"({error}); remove it to train from the start"
            ) from error
        key = bytes(tensors.pop("key").tolist()).decode()
        epoch = int(tensors.pop("epoch"))
        if key != self.key:
            return 0
        prefix = "momentum."
        momentum = {k: tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
        network.load_state_dict(tensors)
        for name, parameter in network.named_parameters():
            if prefix + name in momentum:
                state = momentum[prefix + name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = state
        return epoch

    def save(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, *, epoch: int
    ) -> None:
        """Write the state after an epoch, whole or not at all.

        Args:
            network: The network in training.
            optimizer: Its SGD optimiser.
            epoch: Epochs done.
        """
        if self.path is None:
            return
        tensors: dict[str, Tensor] = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in network.state_dict().items()
        }
        for name, parameter in network.named_parameters():
            state = optimizer.state.get(parameter, {}).get("momentum_buffer")
            if state is not None:
                tensors[f"momentum.{name}"] = state.detach().cpu().contiguous()
        tensors["key"] = torch.tensor(list(self.key.encode()), dtype=torch.uint8)
        tensors["epoch"] = torch.tensor(epoch)
        with atomic(self.path) as temporary:
            save_file(tensors, temporary)

    def remove(self) -> None:
        """Remove the file: the training is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
