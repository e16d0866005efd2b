"""How an encoder is trained on images without labels, and how that went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bezoar.errors import InputError
from bezoar.train.attention_losses import Reduction

_FEWEST = 32  # images of a step: with fewer, batch norms and the contrast mean little


@dataclass(frozen=True, kw_only=True)
class EncoderProtocol:
    """How an encoder is trained; a weight of 0 leaves its term out.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images per step; the rest of an epoch is left out.
        lr: Step size.
        weight_decay: Weight decay on all parameters.
        optimizer: "adam", or "sgd" with momentum 0.9.
        schedule: "constant", or "cosine" to 0.
        contrastive_weight: Of NT-Xent between the two views.
        temperature: Of NT-Xent.
        clone_weight: Of the cosine to the teacher's features.
        attention_power: Of the magnitudes in attention maps.
        attention_reduction: Over the places of attention maps: "mean" or "sum".
        patience: Stop after so many epochs without gain on held-out images.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    contrastive_weight: float = 1.0
    temperature: float = 0.5
    clone_weight: float = 0.0
    attention_power: int = 2
    attention_reduction: Reduction = "mean"
    patience: int | None = None

    def rate(self, epoch: int) -> float:
        """Return the step size of an epoch.

        Args:
            epoch: From 0 on.

        Returns:
            The step size.
        """
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """How a training went; the student itself was changed in place.

    Attributes:
        history: One row an epoch: "loss" and its unweighted terms ("attention" is the
            weighted sum), and with a teacher "cosine" to it and "watched_attention"
            on images as they are: held-out ones where there are some.
        batch_size: Images per step that there were.
        seconds: Wall-clock time.
        stopped: Whether patience ended it.
    """

    history: tuple[Mapping[str, float], ...]
    batch_size: int
    seconds: float
    stopped: bool


def step_size(num_images: int, batch_size: int) -> int:
    """Return how many images a step gets.

    Args:
        num_images: How many there are.
        batch_size: How many are wanted.

    Returns:
        The lower of the two.

    Raises:
        InputError: If that is below 32.

    Example:
        >>> step_size(100, 128)
        100
    """
    size = min(num_images, batch_size)
    if size < _FEWEST:
        raise InputError(
            f"expected at least {_FEWEST} images for a step, got {size}; give more "
            "clean images, or a larger batch_size"
        )
    return size
