"""Augmentation of a batch on its device, one draw per image and no loop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.shapes import UInt8


def crop_and_flip(
    images: UInt8[Tensor, "b c h w"], *, pad: int, stream: torch.Generator
) -> UInt8[Tensor, "b c h w"]:
    """Shift each image by up to ``pad`` pixels and mirror half of them.

    Args:
        images: A batch as it is stored.
        pad: Largest shift; the border is filled by reflection.
        stream: Where the shifts come from.

    Returns:
        Images of the same size.
    """
    count, _, height, width = images.shape
    shifts = torch.randint(0, 2 * pad + 1, (2, count), generator=stream)
    mirrored = torch.rand(count, generator=stream) < 0.5
    padded = functional.pad(images.float(), (pad,) * 4, mode="reflect").to(torch.uint8)
    rows = (shifts[0, :, None] + torch.arange(height)).to(images.device)
    columns = shifts[1, :, None] + torch.arange(width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns).to(images.device)
    batch = torch.arange(count, device=images.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
