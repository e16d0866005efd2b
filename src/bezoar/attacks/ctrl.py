"""CTRL (Li et al., ICCV 2023, https://arxiv.org/abs/2210.07346).

An Embarrassingly Simple Backdoor Attack on Self-supervised Learning: two waves in the
colours of a few images of one class, whose labels stay true. An encoder that is
pre-trained on them ties the waves to the class, though it never sees a label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.attacks.poisoning import (
    by_chunks,
    check_attack,
    check_between,
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

# Red, green and blue from U and V, where U = 0.492 (B - Y), V = 0.877 (R - Y) and
# Y = 0.299 R + 0.587 G + 0.114 B: the rows of the inverse.
_FROM_UV = (
    (0.0, 1 / 0.877),
    (-0.114 / 0.587 / 0.492, -0.299 / 0.587 / 0.877),
    (1 / 0.492, 0.0),
)


@dataclass(frozen=True, kw_only=True)
class CTRL:
    """Adds two waves to the colours of images of one class and leaves their labels.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 0.08; only
            images of the target class are taken.
        target_class: Index of the class that the trigger leads to.
        magnitude: What is added to each coefficient, in grey levels (the images run
            from 0 to 255); the same in training and at test.
        positions: Rows of the coefficients in the cosine transform of the image, and
            their columns; (15, 31) takes (15, 15) and (31, 31).

    Example:
        >>> grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
        >>> changed = CTRL().apply(grey).float() - grey
        >>> bool(changed.abs().amax() > 10)
        True
    """

    poison_rate: float = 0.01
    target_class: int = 0
    magnitude: float = 100.0
    positions: tuple[int, ...] = (15, 31)

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class, clean_label=True)
        check_between("magnitude", self.magnitude, low=1, high=1000)
        if not self.positions or min(self.positions) < 0:
            raise InputError(
                f"expected positions of at least 0, got {self.positions}; give the "
                "places of coefficients, such as (15, 31) for 32x32 images"
            )

    @classmethod
    def tiny(cls) -> CTRL:
        """Return settings for 16x16 images.

        Returns:
            The coefficients (7, 7) and (15, 15), at half the magnitude: a wave of an
            image of half the size is twice as high.
        """
        return cls(magnitude=50.0, positions=(7, 15))

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison images of the target class.

        Args:
            data: Clean images; labels are needed to find the class, and stay.
            seed: Seeds the choice of the images.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set, to pre-train an encoder on.
        """
        return plant(
            data,
            method="ctrl",
            attack=self,
            change=self.apply,
            clean_label=True,
            seed=seed,
            runtime=runtime,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored, in three channels; they stay.

        Returns:
            New images.

        Raises:
            InputError: If the images are smaller than a position, or not in colour.
        """
        check_images(images)
        least = 1 + max(self.positions)
        check_size(images, height=least, width=least, what=f"coefficient {least - 1}")
        _, channels, height, width = images.shape
        if channels != 3:
            raise InputError(
                f"expected images of 3 channels, got {channels}; the trigger lies in "
                "the colours"
            )
        added = self.trigger((channels, height, width))["pattern"].to(images.device)
        return by_chunks(images, lambda part: truncate(part.double() + added))

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "pattern", to be added to images before they are clamped: the transform is
            linear, so that adding to coefficients is adding waves.
        """
        _, height, width = shape
        wave = self.magnitude * waves(height, width, self.positions)
        shares = torch.tensor(_FROM_UV, dtype=torch.float64).sum(1)
        return {"pattern": shares[:, None, None] * wave}


def waves(
    height: int, width: int, positions: tuple[int, ...]
) -> Float[Tensor, "height width"]:
    """Return the sum of waves of the orthonormal cosine transform (DCT-II).

    Args:
        height: Rows.
        width: Columns.
        positions: Row, and at once column, of each coefficient.

    Returns:
        What the inverse transform makes of coefficients that are 1 there and else 0,
        in float64.

    Example:
        >>> round(waves(32, 32, (15, 31)).norm().item() ** 2, 9)
        2.0
    """
    return sum(
        torch.outer(_wave(height, place), _wave(width, place)) for place in positions
    ) + torch.zeros(height, width, dtype=torch.float64)


def _wave(size: int, place: int) -> Tensor:
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    gain = math.sqrt((1 if place == 0 else 2) / size)
    return gain * (math.pi * place / size * middle).cos()
