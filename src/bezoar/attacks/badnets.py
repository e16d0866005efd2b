"""BadNets (Gu, Dolan-Gavitt and Garg, 2017, https://arxiv.org/abs/1708.06733).

A small square in a corner, and the target's label. The 3x3 pattern is that of the
Cognitive Distillation code; the paper shows one bright pixel and a like pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bezoar.attacks.patches import Pattern, check_patch, corner, square, stamp
from bezoar.attacks.poisoning import check_attack, plant
from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.results import Poisoned
from bezoar.runtime import Runtime
from bezoar.shapes import UInt8


@dataclass(frozen=True, kw_only=True)
class BadNets:
    """Stamps a small square on images of every class and gives them one label.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        target_class: Index of the class that the trigger leads to.
        size: Side of the square in pixels; larger ones are the adaptive attack.
        offset: Pixels between the square and the lower and the right edge. The
            published GTSRB sets have (16, 16), a patch that ends at the centre.
        pattern: "official", "checker" or "white".

    Example:
        >>> from bezoar.data import noise_images
        >>> drill = BadNets(poison_rate=0.25).poison(noise_images(8))
        >>> drill.poison_rate, drill.data.labels[drill.is_poison].tolist()
        (0.25, [0, 0])
        >>> drill.data.images[drill.is_poison][0, 0, -3:, -3:].tolist()
        [[0, 0, 255], [0, 255, 0], [255, 255, 0]]
    """

    poison_rate: float = 0.05
    target_class: int = 0
    size: int = 3
    offset: tuple[int, int] = (0, 0)
    pattern: Pattern = "official"

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_patch(size=self.size, offset=self.offset, pattern=self.pattern)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison a random share of all images, those of the target class included.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set.
        """
        return plant(
            data,
            method="badnets",
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
            New images.
        """
        check_images(images)
        return stamp(images, size=self.size, offset=self.offset, pattern=self.pattern)

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "patch", to be written in all channels, and "corner", the row and column
            of its upper left pixel.
        """
        return {
            "patch": square(size=self.size, pattern=self.pattern),
            "corner": corner(shape, size=self.size, offset=self.offset),
        }
