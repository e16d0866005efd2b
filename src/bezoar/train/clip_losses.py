"""The losses of image-text models.

``clip_loss`` is that of Radford et al., 2021, arXiv:2103.00020; ``unimodal_loss`` the
one that CleanCLIP (Bansal et al., 2023, arXiv:2303.03323) adds within each side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.shapes import Float


def clip_loss(
    images: Float[Tensor, "b e"],
    texts: Float[Tensor, "b e"],
    *,
    log_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the symmetric contrastive loss, each pair against all others.

    (CE(exp(s) F G^T, I) + CE(exp(s) G F^T, I)) / 2, in float32.

    Args:
        images: Unit vectors of images (F).
        texts: Unit vectors of their captions, row by row (G).
        log_scale: Logarithm of the factor (s).

    Returns:
        The mean over the batch; ln b where all vectors are equal.

    Example:
        >>> same = torch.ones(64, 1)
        >>> round(clip_loss(same, same, log_scale=torch.tensor(1.0)).item(), 6)
        4.158883
    """
    logits = log_scale.exp() * (images.float() @ texts.float().T)
    own = torch.arange(len(images), device=images.device)
    there = functional.cross_entropy(logits, own)
    back = functional.cross_entropy(logits.T, own)
    return (there + back) / 2


def unimodal_loss(
    vectors: Float[Tensor, "b e"],
    augmented: Float[Tensor, "b e"],
    *,
    log_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the contrastive loss between a side and its augmented self.

    InfoNCE in one direction: each row of ``vectors`` has to find its own among all
    rows of ``augmented``.

    Args:
        vectors: Unit vectors of images, or of texts.
        augmented: Those of their augmented forms, row by row.
        log_scale: Logarithm of the factor.

    Returns:
        The mean over the batch.
    """
    logits = log_scale.exp() * (vectors.float() @ augmented.float().T)
    own = torch.arange(len(vectors), device=vectors.device)
    return functional.cross_entropy(logits, own)
