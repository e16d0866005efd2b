"""Augmentation against unlearnable images (Qin et al., 2023, arXiv:2303.15127).

Clouds of brightness and contrast and shuffled channels drown faint noise; of several
views of an image the one with the highest loss is learnt, which is the one that shows
least of what is learnt too easily. The published policy also draws from TrivialAugment,
which is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import InputError
from bezoar.models import frozen
from bezoar.shapes import Float, Int64


@dataclass(frozen=True, kw_only=True)
class UEraser:
    """Changes a batch by clouds and shuffled channels; for ``harden``.

    Attributes:
        num_views: Views of each image, of which the one with the highest loss is
            learnt; 5 as published, 1 for its "lite" variant, which looks at no loss.
        probability: Of each of the three changes.
        min_roughness: Least share of an octave's height that the next one has.
        max_roughness: Greatest.
        min_intensity: Least height of a cloud of brightness.
        max_intensity: Greatest.

    Example:
        >>> lite = UEraser(num_views=1)
        >>> images, stream = torch.rand(2, 3, 8, 8), torch.Generator()
        >>> lite(nn.Flatten(), images, torch.tensor([0, 1]), stream).shape
        torch.Size([2, 3, 8, 8])
    """

    num_views: int = 5
    probability: float = 0.5
    min_roughness: float = 0.3
    max_roughness: float = 0.7
    min_intensity: float = 0.5
    max_intensity: float = 1.0

    def __post_init__(self) -> None:
        if self.num_views < 1 or not 0 <= self.probability <= 1:
            raise InputError(
                "expected num_views of at least 1 and a probability from 0 to 1, got "
                f"{self.num_views} and {self.probability:g}; correct them"
            )

    def __call__(
        self,
        network: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        stream: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Return the views that the network is to be trained on.

        Args:
            network: The network in training; it comes back as it was.
            images: A batch in [0, 1].
            labels: Class indices.
            stream: Where the views come from.

        Returns:
            One view of each image.
        """
        views = torch.stack([self.view(images, stream) for _ in range(self.num_views)])
        if self.num_views == 1:
            return views[0]
        with frozen(network), torch.no_grad():
            losses = torch.stack(
                [
                    functional.cross_entropy(
                        network(view).float(), labels, reduction="none"
                    )
                    for view in views
                ]
            )
        return views[losses.argmax(0), torch.arange(len(images), device=images.device)]

    def view(
        self, images: Float[Tensor, "b c h w"], stream: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return one view of each image.

        Args:
            images: A batch in [0, 1].
            stream: Where it comes from.

        Returns:
            Images in [0, 1].
        """
        count, channels, height, width = images.shape

        def chosen() -> Tensor:
            drawn = torch.rand(count, generator=stream) < self.probability
            return drawn[:, None, None, None].to(images.device)

        def cloud() -> Tensor:
            span = self.max_roughness - self.min_roughness
            rough = self.min_roughness + span * torch.rand(count, generator=stream)
            return clouds(rough, (height, width), stream).to(images.device)

        span = self.max_intensity - self.min_intensity
        tall = self.min_intensity + span * torch.rand(count, 1, 1, 1, generator=stream)
        brighter = (images + tall.to(images.device) * (2 * cloud() - 1)).clamp(0, 1)
        images = torch.where(chosen(), brighter, images)
        harder = ((images - 0.5) * 4 * cloud() + 0.5).clamp(0, 1)
        images = torch.where(chosen(), harder, images)
        order = torch.rand(count, channels, generator=stream).argsort(1)
        order = order.to(images.device)[:, :, None, None].expand_as(images)
        return torch.where(chosen(), images.gather(1, order), images)


def clouds(
    roughness: Float[Tensor, " b"], size: tuple[int, int], stream: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """Draw fractal clouds: random grids, each twice as fine and less high.

    Args:
        roughness: Height of a grid as a share of the one before.
        size: Height and width.
        stream: Where they come from.

    Returns:
        One cloud each, from 0 to 1.
    """
    found = torch.zeros(len(roughness), 1, *size)
    octave, fine = 0, 3
    while octave == 0 or fine <= max(size):
        grid = torch.rand(len(roughness), 1, fine, fine, generator=stream)
        grid = functional.interpolate(
            grid, size=size, mode="bilinear", align_corners=True
        )
        found += (roughness**octave)[:, None, None, None] * grid
        octave, fine = octave + 1, 2 * fine - 1
    low, high = found.amin((2, 3), keepdim=True), found.amax((2, 3), keepdim=True)
    return (found - low) / (high - low).clamp(min=1e-6)
