"""WaNet (Nguyen and Tran, ICLR 2021, https://arxiv.org/abs/2102.10369).

One smooth warp, too slight to see, is the trigger. The public code draws its grid from
the global random state, so that the grids of training and test differ from run to
run; here the grid follows from the settings, and a manifest keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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
from bezoar.results import Poisoned
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, UInt8


@dataclass(frozen=True, kw_only=True)
class WaNet:
    """Warps images of every class by one fixed grid.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        target_class: Index of the class that the trigger leads to.
        grid_size: Control points along each side (k in the paper), 2 to 1024. The
            paper has 4, a smoother warp that a data set alone hardly teaches.
        strength: Size of the warp (s in the paper): pixels move by about half of it,
            in pixels, on average along each axis; 0 changes nothing.
        grid_seed: Seeds the control points.

    Example:
        >>> from bezoar.data import noise_images
        >>> images = noise_images(2, size=32).images
        >>> WaNet(strength=0.0).apply(images).equal(images)
        True
    """

    poison_rate: float = 0.05
    target_class: int = 0
    grid_size: int = 32
    strength: float = 0.5
    grid_seed: int = 0

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)
        check_between("grid_size", self.grid_size, low=2, high=1024)
        check_between("strength", self.strength, low=0, high=100)

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Poison a random share of all images, those of the target class included.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images, not the grid.
            runtime: Its batch size and progress are used.

        Returns:
            The poisoned set.
        """
        return plant(
            data,
            method="wanet",
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
            New images, truncated to whole grey levels.
        """
        check_images(images)
        check_size(images, height=2, width=2, what="a warp")
        _, channels, height, width = images.shape
        grid = self.trigger((channels, height, width))["grid"].to(images.device)
        return by_chunks(images, lambda x: warp(x, grid))

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "grid" in float64, for ``torch.nn.functional.grid_sample`` (bilinear,
            corners aligned).
        """
        return {
            "grid": warp_grid(
                shape[1],
                shape[2],
                grid_size=self.grid_size,
                strength=self.strength,
                grid_seed=self.grid_seed,
            )
        }


def warp_grid(
    height: int, width: int, *, grid_size: int, strength: float, grid_seed: int
) -> Float[Tensor, "h w 2"]:
    """Return where each pixel of a warped image comes from.

    Args:
        height: Rows of the image, at least 2.
        width: Columns of the image, at least 2.
        grid_size: Control points along each side (k in the paper).
        strength: Size of the warp (s in the paper).
        grid_seed: Seeds the control points.

    Returns:
        x and y of the source of each pixel, from -1 at the first pixel's centre to 1
        at the last one's. Shifts are scaled by the height for rows and by the width
        for columns; the paper has square images only.
    """
    stream = generator(grid_seed, "wanet-grid", grid_size)
    shape = (1, 2, grid_size, grid_size)
    # In float32 a pixel that does not move could come out one grey level lower.
    points = torch.rand(shape, generator=stream, dtype=torch.float64) * 2 - 1
    flow = functional.interpolate(
        points / points.abs().mean(),
        size=(height, width),
        mode="bicubic",
        align_corners=True,
    )[0]
    shift = flow.permute(1, 2, 0) * strength / torch.tensor([width, height])
    rows = torch.linspace(-1, 1, height, dtype=torch.float64)
    columns = torch.linspace(-1, 1, width, dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], dim=2) + shift).clamp(-1, 1)


def warp(
    images: UInt8[Tensor, "n c h w"], grid: Float[Tensor, "h w 2"]
) -> UInt8[Tensor, "n c h w"]:
    """Warp every image by one grid.

    Args:
        images: Images as they are stored.
        grid: Where each pixel comes from.

    Returns:
        Warped images, bilinear, truncated to whole grey levels.
    """
    moved = functional.grid_sample(
        images.double(),
        grid.expand(len(images), -1, -1, -1),
        mode="bilinear",
        align_corners=True,
    )
    return truncate(moved)
