"""CTRL's trigger through the transform itself: there, add, and back again."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ctrl_plain(
    image: Tensor, *, magnitude: float, positions: tuple[int, ...]
) -> Tensor:
    """Return one image with the trigger, before it is clamped.

    Args:
        image: Grey levels (3, n, n) in float64.
        magnitude: What is added to each coefficient of U and of V.
        positions: Row and column of each coefficient.

    Returns:
        Grey levels, not clamped.
    """
    to_yuv = torch.tensor(
        [
            [0.299, 0.587, 0.114],
            [-0.299 * 0.492, -0.587 * 0.492, (1 - 0.114) * 0.492],
            [(1 - 0.299) * 0.877, -0.587 * 0.877, -0.114 * 0.877],
        ],
        dtype=torch.float64,
    )
    transform = _cosines(image.shape[1])
    yuv = torch.einsum("kc,chw->khw", to_yuv, image)
    for channel in (1, 2):
        coefficients = transform @ yuv[channel] @ transform.T
        for place in positions:
            coefficients[place, place] += magnitude
        yuv[channel] = transform.T @ coefficients @ transform
    return torch.einsum("ck,khw->chw", torch.linalg.inv(to_yuv), yuv)


def _cosines(size: int) -> Tensor:
    rows = []
    for place in range(size):
        gain = math.sqrt((1 if place == 0 else 2) / size)
        rows.append(
            [gain * math.cos(math.pi * place * (i + 0.5) / size) for i in range(size)]
        )
    return torch.tensor(rows, dtype=torch.float64)
