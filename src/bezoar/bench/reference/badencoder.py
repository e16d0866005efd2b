"""BadEncoder's loss as it is told: one image at a time, nothing kept from before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def badencoder_loss(
    attacked: nn.Module,
    clean: nn.Module,
    *,
    images: Tensor,
    triggered: Tensor,
    references: Tensor,
    copies: Sequence[Tensor],
    weights: tuple[float, float],
) -> Tensor:
    """Return the loss of a batch, pair by pair.

    Args:
        attacked: The encoder in training.
        clean: The encoder before.
        images: Images in [0, 1].
        triggered: The same with the trigger.
        references: References in [0, 1].
        copies: Batches of augmented references, in the order of the references.
        weights: Lambda 1 and lambda 2.

    Returns:
        ``L0 + lambda_1 L1 + lambda_2 L2``.
    """
    effectiveness, staying, utility = [], [], []
    for image, stamped in zip(images, triggered, strict=True):
        for reference in references:
            effectiveness.append(-_cosine(attacked, stamped, attacked, reference))
        utility.append(-_cosine(attacked, image, clean, image))
    for batch in copies:
        for augmented, reference in zip(batch, references, strict=True):
            staying.append(-_cosine(attacked, augmented, clean, reference))
    terms = [torch.stack(t).mean() for t in (effectiveness, staying, utility)]
    return terms[0] + weights[0] * terms[1] + weights[1] * terms[2]


def _cosine(f: nn.Module, x: Tensor, g: nn.Module, y: Tensor) -> Tensor:
    a, b = f(x[None])[0], g(y[None])[0]
    cosine: Tensor = a @ b / (a.norm() * b.norm())
    return cosine
