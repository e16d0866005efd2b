"""What a killed training needs to go on to the same weights: moments and curves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bezoar.data import ImageData, PairData
from bezoar.train.checkpoint_file import (
    read_checkpoint,
    training_path,
    write_checkpoint,
)

History = tuple[Mapping[str, float], ...]
_ADAM, _SGD = ("exp_avg", "exp_avg_sq", "step"), ("momentum_buffer",)


@dataclass(frozen=True, kw_only=True)
class VAECheckpoint:
    """A file with weights, the optimiser's moments and the curves so far.

    Attributes:
        path: Where it lies; None keeps nothing.
        key: Names the settings and the data, so that another training is not
            continued by mistake.
    """

    path: Path | None
    key: str

    @classmethod
    def at(
        cls,
        work_dir: Path | None,
        *,
        stage: str,
        settings: Mapping[str, object],
        data: ImageData | PairData,
    ) -> VAECheckpoint:
        """Return the checkpoint of one training.

        Args:
            work_dir: Folder of the run, or None.
            stage: Which training of the run it is.
            settings: All that decides the result besides the data.
            data: The training set; captions of pairs belong to the settings.

        Returns:
            The checkpoint; nothing is read or written yet.
        """
        if work_dir is None:
            return cls(path=None, key="")
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(data.images.contiguous().numpy().data)
        digest.update(data.labels.contiguous().numpy().data)
        path = training_path(work_dir, stage=stage)
        return cls(path=path, key=digest.hexdigest())

    def load(self, network: nn.Module, adam: torch.optim.Optimizer) -> History:
        """Bring network and optimiser to where the last run stopped.

        Args:
            network: The network in training; changed in place.
            adam: Its optimiser, Adam or SGD with momentum; changed in place.

        Returns:
            The curves so far, one row an epoch; empty when there is no checkpoint of
            this very training. A ``StorageError`` follows a file that is damaged.
        """
        found = self.path and read_checkpoint(self.path, key=self.key)
        if not found:
            return ()
        tensors, told = found
        history: History = tuple(told["history"])
        for name, parameter in network.named_parameters():
            adam.state[parameter] = state = {
                moment: tensors.pop(f"adam.{moment}.{name}")
                for moment in _moments(adam)
            }
            for moment, value in state.items():
                if value.shape == parameter.shape and moment != "step":
                    # Fused steps go over memory: moments need the weight's layout.
                    state[moment] = torch.empty_like(parameter.detach()).copy_(value)
            if adam.defaults["fused"] and "step" in state:
                state["step"] = state["step"].to(parameter.device)
        network.load_state_dict(tensors)
        return history

    def save(
        self, network: nn.Module, adam: torch.optim.Optimizer, *, history: History
    ) -> None:
        """Write the state after an epoch, whole or not at all.

        Args:
            network: The network in training.
            adam: Its optimiser.
            history: The curves so far.
        """
        if self.path is None:
            return
        tensors: dict[str, Tensor] = dict(network.state_dict())
        for name, parameter in network.named_parameters():
            # A parameter that no loss reaches has no moments.
            state = adam.state.get(parameter, {})
            for moment in _moments(adam):
                none = torch.tensor(0.0) if moment == "step" else parameter.detach() * 0
                tensors[f"adam.{moment}.{name}"] = state.get(moment, none)
        about = {"key": self.key, "history": history}
        write_checkpoint(self.path, tensors, about=about)


def _moments(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    return _SGD if isinstance(optimizer, torch.optim.SGD) else _ADAM
