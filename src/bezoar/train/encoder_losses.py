"""Losses of contrastive pre-training, on projections of length 1.

NT-Xent: Chen et al. (SimCLR), 2020, https://arxiv.org/abs/2002.05709, equation 1.
SupCon: Khosla et al., 2020, https://arxiv.org/abs/2004.11362, equation 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bezoar.shapes import Float, Int64


def nt_xent(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    *,
    temperature: float = 0.5,
) -> Float[Tensor, ""]:
    """Return how badly each view finds its partner among all other views.

    For row i of the 2b rows, ``-log(exp(<p_i, p_i+> / t) / sum_{j != i} exp(<p_i,
    p_j> / t))``; the mean over the rows.

    Args:
        first: Projections of one view of each image, of length 1.
        second: Projections of the other views, in the same order.
        temperature: Divides the cosines (tau in the paper).

    Returns:
        The mean loss in float32 at least; ``ln(2b - 1)`` where all projections are
        equal.

    Example:
        >>> same = torch.ones(128, 1)
        >>> round(nt_xent(same, same).item(), 5)
        5.54126
    """
    rows = torch.cat([first, second])
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    count = len(first)
    logits = rows @ rows.T / temperature
    logits.diagonal().fill_(-torch.inf)  # a row is no candidate for itself
    partners = (rows[:count] * rows[count:]).sum(1).repeat(2) / temperature
    return (logits.logsumexp(1) - partners).mean()


def sup_con(
    projections: Float[Tensor, "b d"],
    labels: Int64[Tensor, " b"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Return how badly each image finds those of its own class among all others.

    Args:
        projections: Of length 1.
        labels: Class indices.
        temperature: Divides the cosines.

    Returns:
        The mean over the images that are not alone in their class, in float32; 0 if
        every one is.

    Example:
        >>> corners = torch.eye(4).repeat_interleave(2, 0)
        >>> classes = torch.arange(4).repeat_interleave(2)
        >>> sup_con(corners, classes).item() < 1e-3
        True
    """
    rows = projections.float()
    logits = rows @ rows.T / temperature
    logits.diagonal().fill_(-torch.inf)
    same = labels[:, None] == labels
    same.fill_diagonal_(False)
    log_shares = (logits - logits.logsumexp(1, keepdim=True)).masked_fill(~same, 0.0)
    partners = same.sum(1)
    losses = -log_shares.sum(1) / partners.clamp(min=1)
    return losses.sum() / (partners > 0).sum().clamp(min=1)
