"""The simplest noise that makes images unlearnable: one random pattern a class.

A control for purifiers, used so in Huang et al. (ICLR 2021, arXiv:2101.04898): it is
easy to learn, and as easy to take out. Only a smooth pattern hides among what classes
differ in by nature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.attacks.unlearnable import check_eps, check_rate, protect
from bezoar.data import ImageData
from bezoar.models.cosine import inverse_cosine_transform
from bezoar.results import Poisoned
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float

_SIDE = 8  # pixels of a patch
_WAVES = 4  # along each axis


@dataclass(frozen=True, kw_only=True)
class ClassNoise:
    """Adds one random pattern for each class.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        eps: Largest change of a value, in units of [0, 1].
        shape: "full", "patch" (8x8 pixels at a random place of the class), or "smooth"
            (a mixture of the 4x4 lowest waves, which looks like what classes differ in
            by nature).

    Example:
        >>> from bezoar.data import noise_images
        >>> ClassNoise().poison(noise_images(4)).poison_rate
        1.0
    """

    poison_rate: float = 1.0
    eps: float = 8 / 255
    shape: Literal["full", "patch", "smooth"] = "full"

    def __post_init__(self) -> None:
        check_rate(self.poison_rate)
        check_eps(self.eps)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Make a random share of the images unlearnable.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images and the patterns.
            runtime: Its progress is used.

        Returns:
            The poisoned set.
        """

        def change(chosen: ImageData) -> Tensor:
            return chosen.images.float() / 255 + self.perturbation(chosen, seed=seed)

        return protect(
            data,
            name="class-noise",
            attack=self,
            change=change,
            seed=seed,
            runtime=runtime,
        )

    def perturbation(
        self, data: ImageData, *, seed: int = 0
    ) -> Float[Tensor, "n c h w"]:
        """Return what is added, before it is clipped.

        Args:
            data: Labelled images.
            seed: Seeds the patterns.

        Returns:
            The pattern of its class for each image, even in [-eps, eps]; a smooth one
            reaches eps at one place.
        """
        size = (len(data.class_names), *data.images.shape[1:])
        stream = generator(seed, "class-noise")
        if self.shape == "smooth":
            return self._smooth(size, stream)[data.labels]
        patterns = self.eps * (2 * torch.rand(size, generator=stream) - 1)
        if self.shape == "patch":
            height, width = size[2:]
            side = min(_SIDE, height, width)
            kept = torch.zeros_like(patterns)
            rows = torch.randint(0, height - side + 1, (size[0],), generator=stream)
            columns = torch.randint(0, width - side + 1, (size[0],), generator=stream)
            corners = zip(rows.tolist(), columns.tolist(), strict=True)
            for label, (row, column) in enumerate(corners):
                kept[label, :, row : row + side, column : column + side] = 1
            patterns = patterns * kept
        return patterns[data.labels]

    def _smooth(self, size: Sequence[int], stream: torch.Generator) -> Tensor:
        height, width = size[2:]
        few = (min(_WAVES, height), min(_WAVES, width))
        waves = torch.randn((*size[:2], *few), generator=stream)
        patterns = inverse_cosine_transform(waves, size=(height, width))
        most = patterns.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
        return self.eps * patterns / most
