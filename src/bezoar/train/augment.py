"""Augmentation of a batch on its device, one draw per image and no loop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.shapes import Float, UInt8


def crop_and_flip(
    images: UInt8[Tensor, "b c h w"], stream: torch.Generator, *, pad: int
) -> UInt8[Tensor, "b c h w"]:
    """Shift each image by up to ``pad`` pixels and mirror half of them.

    Args:
        images: A batch as it is stored.
        stream: Where the shifts come from.
        pad: Largest shift; the border is filled by reflection.

    Returns:
        Images of the same size.
    """
    padded = functional.pad(images.float(), (pad,) * 4, mode="reflect").to(torch.uint8)
    return _cropped(padded, stream, pad=pad)


def shift_and_mirror(
    images: Float[Tensor, "b c h w"], stream: torch.Generator, *, pad: int
) -> Float[Tensor, "b c h w"]:
    """Do as ``crop_and_flip`` does, with slopes that reach the images.

    Args:
        images: A batch in [0, 1].
        stream: Where the shifts come from.
        pad: Largest shift; the border is filled by reflection.

    Returns:
        Images of the same size.
    """
    padded = functional.pad(images, (pad,) * 4, mode="reflect")
    return _cropped(padded, stream, pad=pad)


def _cropped(padded: Tensor, stream: torch.Generator, *, pad: int) -> Tensor:
    count, _, height, width = padded.shape
    shifts = torch.randint(0, 2 * pad + 1, (2, count), generator=stream)
    mirrored = torch.rand(count, generator=stream) < 0.5
    rows = (shifts[0, :, None] + torch.arange(height - 2 * pad)).to(padded.device)
    columns = shifts[1, :, None] + torch.arange(width - 2 * pad)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns).to(padded.device)
    batch = torch.arange(count, device=padded.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def cut_out(
    images: UInt8[Tensor, "b c h w"], stream: torch.Generator, *, size: int
) -> UInt8[Tensor, "b c h w"]:
    """Blacken one square in each image (DeVries and Taylor, 2017, arXiv 1708.04552).

    Args:
        images: A batch as it is stored.
        stream: Where the places come from; a square's middle lies in the image.
        size: Side of the square in pixels.

    Returns:
        Images of the same size.
    """
    count, _, height, width = images.shape
    tops = torch.randint(0, height, (count, 1), generator=stream) - size // 2
    lefts = torch.randint(0, width, (count, 1), generator=stream) - size // 2
    rows = torch.arange(height) - tops
    columns = torch.arange(width) - lefts
    in_rows = (rows >= 0) & (rows < size)
    in_columns = (columns >= 0) & (columns < size)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole.to(images.device), 0)
