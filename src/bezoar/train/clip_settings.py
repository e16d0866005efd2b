"""How an image-text model is trained, and the step size at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from bezoar.errors import InputError

Schedule = Literal["cosine", "official", "constant"]


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """How an image-text model is trained.

    The defaults fit ``TinyClip`` to a few thousand pairs. Without augmentation on
    purpose: a backdoor is learnt as it was planted.

    Attributes:
        epochs: Passes over the pairs.
        lr: Highest step size of AdamW.
        weight_decay: Weight decay; none on norms, biases and the log scale.
        batch_size: Pairs per step; the last, smaller batch of an epoch is left out
            when it holds fewer than half of that.
        warmup_steps: Steps of linear warm-up; None takes a tenth of all steps.
        schedule: "cosine" (warm-up, then half a cosine to 0), "constant" (warm-up,
            then lr), or "official": that of the released CleanCLIP code, which counts
            from the second epoch on, so that a short warm-up is never seen and the
            step size rises again in the last epoch.
        augment: "none" or "crop_flip" (shift by up to an eighth, mirror).
        trainable: "all", or "image": the text tower and the scale stay as they are.
    """

    epochs: int = 5
    lr: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 64
    warmup_steps: int | None = None
    schedule: Schedule = "cosine"
    augment: Literal["none", "crop_flip"] = "none"
    trainable: Literal["all", "image"] = "all"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(
                "expected epochs of at least 1 and a batch_size of at least 2, for a "
                f"pair is told from others, got {self.epochs} and {self.batch_size}; "
                "raise them"
            )
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise InputError(
                f"expected lr above 0 and weight_decay of at least 0, got {self.lr} "
                f"and {self.weight_decay}; correct them"
            )
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise InputError(
                f"expected warmup_steps of at least 0, got {self.warmup_steps}; "
                "give 0 for none"
            )

    def rate(self, step: int, *, steps_per_epoch: int) -> float:
        """Return the step size of a step.

        Args:
            step: From 0 to ``epochs * steps_per_epoch`` - 1.
            steps_per_epoch: Steps in each epoch.

        Returns:
            The step size.

        Example:
            >>> cleaning = ClipTraining(
            ...     lr=1.0, epochs=10, warmup_steps=50, schedule="official"
            ... )
            >>> round(cleaning.rate(0, steps_per_epoch=1562), 3)
            0.977
        """
        total = self.epochs * steps_per_epoch
        warmup = self.warmup_steps
        if warmup is None:
            warmup = math.ceil(total / 10)
        if self.schedule == "official":
            step += steps_per_epoch  # its epochs are counted from 1
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "constant":
            return self.lr
        progress = (step - warmup) / max(1, total - warmup)
        return self.lr * (1 + math.cos(math.pi * progress)) / 2


def decay_groups(
    parameters: Iterable[nn.Parameter], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups for an optimiser: matrices decay, vectors and numbers do not.

    Norms, biases and the log scale have at most one axis. The released code goes by
    name and so decays the batch norms that are called "downsample"; here they do not.

    Args:
        parameters: What is trained.
        weight_decay: Weight decay of the matrices and kernels.

    Returns:
        Two groups of parameters.
    """
    every = list(parameters)
    return [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
