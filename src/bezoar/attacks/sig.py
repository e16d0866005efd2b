"""SIG (Barni, Kallas and Tondi, ICIP 2019, https://arxiv.org/abs/1902.11237).

Vertical stripes on images of the target class, whose labels stay true. Two forms are
in use: the sinusoid of the paper, and the one in the trigger file that many toolkits
pass on, whose negative values wrapped around when they were stored as uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bezoar.attacks.poisoning import (
    by_chunks,
    check_attack,
    check_between,
    check_choice,
    check_size,
    plant,
    truncate,
)
from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.results import Poisoned
from bezoar.runtime import Runtime
from bezoar.shapes import Float, UInt8

Form = Literal["sinusoid", "wrapped"]

_DELTA, _FREQUENCY = 40 / 255, 6


@dataclass(frozen=True, kw_only=True)
class SIG:
    """Draws stripes over images of the target class and leaves their labels.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 0.08; only
            images of the target class are taken.
        target_class: Index of the class that the trigger leads to.
        form: "sinusoid" adds delta * sin(2 pi j frequency / width) to column j;
            "wrapped" blends in the common trigger file at 0.2, which is far
            stronger and has no further settings.
        delta: Height of the sinusoid in units of [0, 1].
        frequency: Whole waves over the width of the image.

    Example:
        >>> grey = torch.full((1, 1, 1, 32), 100, dtype=torch.uint8)
        >>> SIG().apply(grey).flatten()[:4].tolist()
        [100, 136, 128, 84]
    """

    poison_rate: float = 0.05
    target_class: int = 0
    form: Form = "sinusoid"
    delta: float = _DELTA
    frequency: int = _FREQUENCY

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class, clean_label=True)
        check_choice("form", self.form, get_args(Form))
        check_between("delta", self.delta, low=1 / 255, high=1)
        check_between("frequency", self.frequency, low=1, high=1000)
        is_default = (self.delta, self.frequency) == (_DELTA, _FREQUENCY)
        if self.form == "wrapped" and not is_default:
            raise InputError(
                "expected no delta or frequency with the wrapped form, got "
                f"delta={self.delta:g} and frequency={self.frequency}; leave them out "
                'or choose form="sinusoid"'
            )

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison random images of the target class; no label changes.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set.
        """
        return plant(
            data,
            method="sig",
            attack=self,
            change=self.apply,
            clean_label=True,
            seed=seed,
            runtime=runtime,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images, truncated to whole grey levels.
        """
        check_images(images)
        if self.form == "wrapped":
            row = wrapped_row(images.shape[-1]).to(images.device)
            return by_chunks(images, lambda x: truncate(0.8 * x.double() + 0.2 * row))
        # With fewer columns the stripes alias, and may vanish altogether.
        least = 2 * self.frequency + 1
        what = f"stripes of frequency {self.frequency}"
        check_size(images, height=1, width=least, what=what)
        row = self._sinusoid(images.shape[-1]).to(images.device)
        return by_chunks(images, lambda x: truncate(x.double() + row))

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "row", in grey levels and equal for every row: to be added (sinusoid), or
            to be blended in at 0.2 (wrapped).
        """
        is_wrapped = self.form == "wrapped"
        return {
            "row": wrapped_row(shape[2]) if is_wrapped else self._sinusoid(shape[2])
        }

    def _sinusoid(self, width: int) -> Float[Tensor, " w"]:
        return sinusoid_row(width, delta=self.delta, frequency=self.frequency)


def sinusoid_row(width: int, *, delta: float, frequency: int) -> Float[Tensor, " w"]:
    """Return the stripes of the paper, one value for each column j from 0.

    Args:
        width: Columns.
        delta: Height in units of [0, 1].
        frequency: Waves over the width.

    Returns:
        255 * delta * sin(2 pi j frequency / width), in grey levels.
    """
    turn = 2 * math.pi * frequency / width
    waves = [255 * delta * math.sin(turn * j) for j in range(width)]
    return torch.tensor(waves, dtype=torch.float64)


def wrapped_row(width: int) -> Float[Tensor, " w"]:
    """Return the stripes of the common trigger file, one value for each column.

    Args:
        width: Columns.

    Returns:
        20 * sin(0.8 j), cut to whole numbers towards zero, modulo 256.

    Example:
        >>> wrapped_row(8).int().tolist()
        [0, 14, 19, 13, 255, 241, 237, 244]
    """
    waves = [math.trunc(20 * math.sin(0.8 * j)) % 256 for j in range(width)]
    return torch.tensor(waves, dtype=torch.float64)
