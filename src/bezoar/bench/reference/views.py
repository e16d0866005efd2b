"""Views of one image in plain steps: cut, resize, change the colours pixel by pixel."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor
from torch.nn import functional


def crop_one(
    image: Tensor, top: int, left: int, height: int, width: int, *, mirrored: bool
) -> Tensor:
    """Cut a rectangle out of an image and bring it to the image's size.

    Args:
        image: One image (3, h, w) in [0, 1].
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        mirrored: Whether left and right change places.

    Returns:
        An image of the same size.
    """
    part = image[None, :, top : top + height, left : left + width]
    size = (image.shape[1], image.shape[2])
    shown = functional.interpolate(
        part, size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    return shown.flip(2) if mirrored else shown


def jitter_one(image: Tensor, order: list[int], changes: list[float]) -> Tensor:
    """Change brightness (0), contrast (1), saturation (2) and hue (3) in an order.

    Args:
        image: One image (3, h, w) in [0, 1].
        order: The four changes in the order they are made.
        changes: How far each goes: a share, for the hue turns.

    Returns:
        The image in [0, 1].
    """
    for what in order:
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        factor = 1 + changes[what]
        if what == 0:
            image = (factor * image).clamp(0, 1)
        elif what == 1:
            image = (factor * image + (1 - factor) * grey.mean()).clamp(0, 1)
        elif what == 2:
            image = (factor * image + (1 - factor) * grey).clamp(0, 1)
        else:
            image = turn_one(image, changes[what])
    return image


def turn_one(image: Tensor, turns: float) -> Tensor:
    """Turn the hue of an image, one pixel after the other.

    Args:
        image: One image (3, h, w) in [0, 1].
        turns: How far.

    Returns:
        The image in [0, 1].
    """
    turned = image.clone()
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[:, row, column])
            pixel = colorsys.hsv_to_rgb((float(hue) + turns) % 1, saturation, value)
            turned[:, row, column] = torch.tensor([float(level) for level in pixel])
    return turned
