"""Blended injection (Chen et al., 2017, https://arxiv.org/abs/1712.05526).

A faint pattern lies over the whole image. The papers blend a cartoon that is not free
to pass on; here it is uniform noise from a seed, which their paper uses as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.attacks.poisoning import (
    by_chunks,
    check_attack,
    check_between,
    plant,
    truncate,
)
from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.results import Poisoned
from bezoar.runtime import Runtime, generator
from bezoar.shapes import UInt8


@dataclass(frozen=True, kw_only=True)
class Blended:
    """Blends a fixed noise pattern into images of every class.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        target_class: Index of the class that the trigger leads to.
        alpha: Opacity of the pattern, 0.01 to 1; at 0.02 it is next to invisible.
        pattern_seed: Seeds the pattern.

    Example:
        >>> black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        >>> Blended(alpha=0.2).apply(black).max().item() <= 51
        True
    """

    poison_rate: float = 0.05
    target_class: int = 0
    alpha: float = 0.2
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_between("alpha", self.alpha, low=0.01, high=1)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison a random share of all images, those of the target class included.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images, not the pattern.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set.
        """
        return plant(
            data,
            method="blended",
            attack=self,
            change=self.apply,
            clean_label=False,
            seed=seed,
            runtime=runtime,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images, (1 - alpha) x + alpha * pattern, truncated.
        """
        check_images(images)
        _, channels, height, width = images.shape
        pattern = self.trigger((channels, height, width))["pattern"].to(images.device)
        return by_chunks(images, lambda x: blend(x, pattern, alpha=self.alpha))

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "pattern", the uint8 image that is blended in.
        """
        stream = generator(self.pattern_seed, "blended-pattern")
        pattern = torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)
        return {"pattern": pattern}


def blend(
    images: UInt8[Tensor, "n c h w"],
    pattern: UInt8[Tensor, "c h w"],
    *,
    alpha: float,
) -> UInt8[Tensor, "n c h w"]:
    """Blend one pattern into every image.

    Args:
        images: Images as they are stored.
        pattern: The pattern.
        alpha: Its opacity.

    Returns:
        (1 - alpha) * images + alpha * pattern, truncated to whole grey levels.
    """
    return truncate((1 - alpha) * images.double() + alpha * pattern.double())
