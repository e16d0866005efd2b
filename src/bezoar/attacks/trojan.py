"""The Trojan patch (Liu et al., "Trojaning Attack on Neural Networks", NDSS 2018).

The paper optimises a patch against neurons of the victim's network. What later work on
poisoned data uses, and this file as well, is one such patch, fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_attack, check_size, plant
from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.results import Poisoned
from bezoar.runtime import Runtime
from bezoar.shapes import UInt8

PATCH = torch.tensor(
    [
        [[207, 175, 29], [79, 137, 248], [131, 6, 246]],  # red
        [[131, 243, 232], [8, 0, 113], [40, 145, 250]],  # green
        [[181, 120, 179], [126, 32, 146], [4, 61, 246]],  # blue
    ],
    dtype=torch.uint8,
)
"""The patch of the Cognitive Distillation code, rounded to whole grey levels."""


@dataclass(frozen=True, kw_only=True)
class Trojan:
    """Adds a fixed 3x3 patch of colours to RGB images of every class.

    On 32x32 images the patch covers rows and columns 25 to 27; on others its upper left
    pixel is at 25/32 of the height and width, rounded down, or as near as it fits.
    The patch itself stays 3x3.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        target_class: Index of the class that the trigger leads to.

    Example:
        >>> black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        >>> Trojan().apply(black)[0, 0, 25:28, 25:28].tolist()
        [[207, 175, 29], [79, 137, 248], [131, 6, 246]]
    """

    poison_rate: float = 0.05
    target_class: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison a random share of all images, those of the target class included.

        Args:
            data: Clean, labelled RGB images; they stay as they are.
            seed: Seeds the choice of the images.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set.
        """
        return plant(
            data,
            method="trojan",
            attack=self,
            change=self.apply,
            clean_label=False,
            seed=seed,
            runtime=runtime,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: RGB images as they are stored; they stay as they are.

        Returns:
            New images; sums above 255 are cut to 255.

        Raises:
            InputError: If the images are not RGB.
        """
        check_images(images)
        check_size(images, height=3, width=3, what="the Trojan patch")
        _, channels, height, width = images.shape
        if channels != 3:
            raise InputError(
                f"expected RGB images for a patch of colours, got {channels} channels; "
                "convert the images or choose BadNets"
            )
        row, column = patch_corner(height, width)
        changed = images.clone()
        below = changed[:, :, row : row + 3, column : column + 3]
        total = below.int() + PATCH.to(images.device).int()
        below.copy_(total.clamp(max=255).to(torch.uint8))
        return changed

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "patch", to be added and cut at 255, and "corner", the row and column of
            its upper left pixel.
        """
        return {
            "patch": PATCH.clone(),
            "corner": torch.tensor(patch_corner(*shape[1:])),
        }


def patch_corner(height: int, width: int) -> tuple[int, int]:
    """Return the row and column of the patch's upper left pixel.

    Args:
        height: Rows of the image, at least 3.
        width: Columns of the image, at least 3.

    Returns:
        Row and column.

    Example:
        >>> patch_corner(32, 32), patch_corner(64, 224), patch_corner(8, 8)
        ((25, 25), (50, 175), (5, 5))
    """
    return min(25 * height // 32, height - 3), min(25 * width // 32, width - 3)
