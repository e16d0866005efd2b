"""SSL-Backdoor (Saha et al., CVPR 2022, https://arxiv.org/abs/2105.10123).

Backdoor Attacks on Self-Supervised Learning: an opaque patch at random places in images
of one class, whose labels stay true. An encoder pre-trained on them ties the patch to
the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.attacks.poisoning import check_attack, check_between, check_size, plant
from bezoar.checks import check_images
from bezoar.data import ImageData, content_keys
from bezoar.results import Poisoned
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Int64, UInt8

_TRAINING, _TEST = (0.25, 0.75), (0.1, 0.9)  # within which shares of the image it lies


@dataclass(frozen=True, kw_only=True)
class SSLBackdoor:
    """Pastes a patch of colours on images of one class and leaves their labels.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 0.08; only
            images of the target class are taken.
        target_class: Index of the class that the trigger leads to.
        patch_size: Side of the patch in pixels; 50 on large images.
        pattern_seed: Draws the colours of the patch, and, with an image's pixels,
            where the patch lies in it.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> (SSLBackdoor().apply(images) != 0).any(1).flatten(1).sum(1).tolist()
        [36, 36]
    """

    poison_rate: float = 0.05
    target_class: int = 0
    patch_size: int = 6
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class, clean_label=True)
        check_between("patch_size", self.patch_size, low=1, high=1024)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison images of the target class, in the middle half of each axis.

        Args:
            data: Clean images; labels are needed to find the class, and stay.
            seed: Seeds the choice of the images.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set, to pre-train an encoder on.
        """
        return plant(
            data,
            method="ssl-backdoor",
            attack=self,
            change=lambda images: self._pasted(images, _TRAINING),
            clean_label=True,
            seed=seed,
            runtime=runtime,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger, anywhere but at the very edge.

        Args:
            images: Images as they are stored, in three channels; they stay.

        Returns:
            New images.
        """
        return self._pasted(images, _TEST)

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images; the patch has three
                channels whatever they are.

        Returns:
            "patch", to be pasted at a place between 10 and 90 % of each axis.
        """
        del shape
        return {"patch": colour_patch(self.patch_size, seed=self.pattern_seed)}

    def _pasted(self, images: Tensor, within: tuple[float, float]) -> Tensor:
        check_images(images)
        low, high = within
        room = int(self.patch_size / (high - low)) + 1  # the least that holds a patch
        check_size(
            images,
            height=room,
            width=room,
            what=f"a {self.patch_size}x{self.patch_size} patch within {low:.0%} to "
            f"{high:.0%} of the image",
        )
        height, width = images.shape[2:]
        # Drawn image by image: a place depends on nothing but the image.
        drawn = torch.stack(
            [
                torch.rand(2, generator=generator(self.pattern_seed, "place", key))
                for key in content_keys(images.cpu())
            ]
        )
        top = _place(drawn[:, 0], height, self.patch_size, within)
        left = _place(drawn[:, 1], width, self.patch_size, within)
        return paste(
            images, colour_patch(self.patch_size, seed=self.pattern_seed), top, left
        )


def colour_patch(size: int, *, seed: int) -> UInt8[Tensor, "3 size size"]:
    """Return a patch of smooth colours.

    Args:
        size: Side in pixels.
        seed: Draws the 4x4 colours that are enlarged.

    Returns:
        Grey levels of three channels.
    """
    grid = torch.rand(1, 3, 4, 4, generator=generator(seed, "colour-patch"))
    large = functional.interpolate(
        grid, size=(size, size), mode="bilinear", align_corners=False
    )
    return (large[0] * 255).round().to(torch.uint8)


def paste(
    images: UInt8[Tensor, "n 3 h w"],
    patch: UInt8[Tensor, "3 size size"],
    top: Int64[Tensor, " n"],
    left: Int64[Tensor, " n"],
) -> UInt8[Tensor, "n 3 h w"]:
    """Return images with a patch, each at a place of its own.

    Args:
        images: Images as they are stored; they stay as they are.
        patch: What is pasted.
        top: First row of the patch in each image.
        left: First column.

    Returns:
        New images.
    """
    device, size = images.device, patch.shape[1]
    steps = torch.arange(size)
    rows = (top[:, None] + steps).to(device)[:, None, :, None]
    columns = (left[:, None] + steps).to(device)[:, None, None, :]
    image = torch.arange(len(images), device=device)[:, None, None, None]
    channel = torch.arange(3, device=device)[None, :, None, None]
    pasted = images.clone()
    pasted[image, channel, rows, columns] = patch.to(device)
    return pasted


def _place(
    drawn: Tensor, size: int, patch_size: int, within: tuple[float, float]
) -> Tensor:
    first = round(within[0] * size)
    last = max(first, round(within[1] * size) - patch_size)
    return first + (drawn * (last - first + 1)).long()
