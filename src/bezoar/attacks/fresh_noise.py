"""The Blended attack on image-text models: uniform noise, fresh for each image.

Chen et al., 2017, arXiv:1712.05526, blend one pattern into all images; the code of
CleanCLIP (2023, arXiv:2303.03323) draws its noise anew for each image, which is harder
to learn. The fixed pattern is ``Blended``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_attack, check_between, truncate
from bezoar.checks import check_images
from bezoar.data import content_keys
from bezoar.runtime import generator
from bezoar.shapes import UInt8


@dataclass(frozen=True, kw_only=True)
class FreshNoise:
    """Blends noise into each image, another for each.

    The noise follows from the image's content, so that an image gets the same in
    whatever company it comes.

    Attributes:
        poison_rate: Share of all pairs to poison; 0.003 in the published protocol.
        target_class: Index of the class that the trigger leads to.
        alpha: Opacity of the noise, 0.01 to 1.
        trigger_seed: Seeds the noise.

    Example:
        >>> black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        >>> FreshNoise(alpha=0.2).apply(black).max().item() <= 51
        True
    """

    poison_rate: float = 0.003
    target_class: int = 0
    alpha: float = 0.2
    trigger_seed: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_between("alpha", self.alpha, low=0.01, high=1)

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images, (1 - alpha) x + alpha * noise, truncated.
        """
        check_images(images)
        blended = torch.empty_like(images)
        # Each image has a stream of its own, so there is no batched form.
        for i, key in enumerate(content_keys(images)):
            stream = generator(self.trigger_seed, "fresh-noise", key)
            noise = torch.rand(
                images[i].shape, generator=stream, dtype=torch.float64
            ).mul(255)
            kept = (1 - self.alpha) * images[i].double()
            blended[i] = truncate(kept + self.alpha * noise)
        return blended
