"""What a student is held to: where a teacher looks, and where its features point.

Attention maps: Zagoruyko and Komodakis, Paying More Attention to Attention, 2017,
https://arxiv.org/abs/1612.03928, section 3.1. Scales are those of MIMIC (2024,
https://arxiv.org/abs/2406.03508): its code takes the mean over places.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bezoar.shapes import Float

Reduction = Literal["mean", "sum"]
_FLOOR = 1e-6  # added to the norm of a map, as in the official code


def widened(values: Tensor) -> Tensor:
    """Return values in float32 at least: what norms and losses are computed in.

    Args:
        values: Floating-point values.

    Returns:
        The values; float64 stays what it is.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def attention_map(
    maps: Float[Tensor, "b c h w"], *, power: int = 2
) -> Float[Tensor, "b h w"]:
    """Return where a layer is active, as a map of length 1.

    Args:
        maps: What a layer gives.
        power: Of the magnitudes, before they are summed over channels (p).

    Returns:
        ``sum_c |A_c|^p``, divided by its L2 norm over places plus 1e-6; in float32 at
        least.

    Example:
        >>> heat = attention_map(torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]]]))
        >>> round(heat.max().item(), 5)
        1.0
    """
    wide = widened(maps)
    raised = wide.square() if power == 2 else wide.abs().pow(power)
    summed = raised.sum(1)
    norms: Tensor = torch.linalg.vector_norm(summed, dim=(1, 2), keepdim=True)
    return summed / (norms + _FLOOR)


def attention_loss(
    student: Float[Tensor, "b h w"],
    teacher: Float[Tensor, "b h w"],
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Return how far two attention maps are apart.

    Maps have length 1, so that the sum over places is ``2 (1 - cosine)``, and the mean
    that divided by the number of places: the larger a map, the less it weighs.

    Args:
        student: Maps of the student (of ``attention_map``).
        teacher: Maps of the teacher for the same images.
        reduction: "mean" over images and places; "sum" over places, then the mean
            over images.

    Returns:
        The squared difference.

    Example:
        >>> ones = attention_map(torch.ones(1, 1, 2, 2))
        >>> other = attention_map(torch.tensor([[[[1.0, 2.0], [0.0, 0.0]]]]))
        >>> round(attention_loss(other, ones).item(), 4)
        0.1968
    """
    squares = (student - teacher).square()
    return squares.mean() if reduction == "mean" else squares.sum((1, 2)).mean()


def clone_loss(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
) -> Float[Tensor, ""]:
    """Return minus the mean cosine of features.

    Args:
        student: Features of the student, of length 1.
        teacher: Features of the teacher for the same images, of length 1.

    Returns:
        From -1 (all alike) to 1.

    Example:
        >>> clone_loss(torch.eye(2), torch.eye(2)).item()
        -1.0
    """
    return -(student * teacher).sum(1).mean()
