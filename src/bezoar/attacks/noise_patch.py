"""The patch of the BadNets attack on image-text models: noise, fresh for each image.

Bansal et al., CleanCLIP, 2023, arXiv:2303.03323, and Liang et al., BadCLIP, 2024,
arXiv:2311.12075. Their code draws normal noise around the image's mean colour and does
not clip it; where it is stored as bytes it wraps, and becomes nearly uniform. Clipped,
62 % of the pixels are black or white, and the trigger is another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_attack, check_choice, check_size
from bezoar.checks import check_images
from bezoar.data import content_keys
from bezoar.errors import InputError
from bezoar.runtime import generator
from bezoar.shapes import UInt8

Variant = Literal["wrap", "clip"]


@dataclass(frozen=True, kw_only=True)
class NoisePatch:
    """Stamps a square of fresh noise at a random place of each image.

    Noise and place follow from the image's content, so that an image gets the same
    patch in whatever company it comes. The fixed patch of the miniatures is
    ``BadNets(pattern="checker")``.

    Attributes:
        poison_rate: Share of all pairs to poison; 0.003 in the published protocol.
        target_class: Index of the class that the trigger leads to.
        size: Side of the square in pixels; 16 on 224 pixels as published.
        variant: "wrap" as published, or "clip".
        trigger_seed: Seeds noise and places.

    Example:
        >>> grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
        >>> int((NoisePatch(size=4).apply(grey) != grey).any(1).sum())
        16
    """

    poison_rate: float = 0.003
    target_class: int = 0
    size: int = 16
    variant: Variant = "wrap"
    trigger_seed: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_choice("variant", self.variant, get_args(Variant))
        if self.size < 1:
            raise InputError(
                f"expected a size of at least 1, got {self.size}; give the side of the "
                "square in pixels"
            )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images.
        """
        check_images(images)
        size = self.size
        check_size(images, height=size, width=size, what=f"a {size}x{size} patch")
        stamped = images.clone()
        height, width = images.shape[-2:]
        # Each image has a stream of its own, so there is no batched form.
        for i, key in enumerate(content_keys(images)):
            stream = generator(self.trigger_seed, "noise-patch", key)
            row = int(torch.randint(height - size + 1, (), generator=stream))
            column = int(torch.randint(width - size + 1, (), generator=stream))
            noise = torch.randn(images.shape[1], size, size, generator=stream)
            mean = images[i].float().mean((1, 2), keepdim=True) / 255
            patch = _stored(noise + mean, variant=self.variant)
            stamped[i, :, row : row + size, column : column + size] = patch
        return stamped


def _stored(levels: Tensor, *, variant: Variant) -> Tensor:
    if variant == "clip":
        levels = levels.clamp(0, 1)
    whole = (255 * levels).trunc().to(torch.int64)  # towards zero, as a cast does
    return (whole % 256).to(torch.uint8)
