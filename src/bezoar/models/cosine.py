"""The orthonormal cosine transform (DCT-II) of images, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bezoar.shapes import Float


def cosine_transform(images: Float[Tensor, "... h w"]) -> Float[Tensor, "... h w"]:
    """Return the orthonormal cosine transform over the last two axes.

    Args:
        images: Images, in float32 or float64.

    Returns:
        Coefficients, from the mean on to the finest waves; they have the norm of the
        images.

    Example:
        >>> cosine_transform(torch.full((1, 4, 4), 0.5))[0, 0].round(decimals=4)[0]
        tensor(2.)
    """
    down, across = (_waves(size, images) for size in images.shape[-2:])
    return down @ images @ across.T


def inverse_cosine_transform(
    coefficients: Float[Tensor, "... i j"], *, size: tuple[int, int]
) -> Float[Tensor, "... h w"]:
    """Return the images that cosine transforms stand for.

    Args:
        coefficients: The first coefficients of each axis, or all; the rest is 0.
        size: Height and width of the images.

    Returns:
        The images.

    Example:
        >>> inverse_cosine_transform(torch.tensor([[2.0]]), size=(2, 4))[0]
        tensor([0.7071, 0.7071, 0.7071, 0.7071])
    """
    count = coefficients.shape[-2:]
    down, across = (
        _waves(side, coefficients)[:first]
        for side, first in zip(size, count, strict=True)
    )
    return down.T @ coefficients @ across


def _waves(size: int, like: Tensor) -> Tensor:
    steps = torch.arange(size, dtype=like.dtype, device=like.device)
    waves = (math.pi / size * steps[:, None] * (steps + 0.5)).cos()
    waves[0] /= math.sqrt(2)
    return waves * math.sqrt(2 / size)
