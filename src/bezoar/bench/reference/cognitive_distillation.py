"""The plain loop of Cognitive Distillation, as the paper and its code describe it.

float32, a batch of 100, autograd through everything, weights that take gradients, and
the framework's own Adam. It shares no code with ``bezoar.detect``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bezoar.shapes import Float

BATCH = 100


def distill_plain(
    images: Float[Tensor, "b c h w"],
    fills: Float[Tensor, "b steps c"],
    *,
    model: nn.Module,
    lr: float,
    l1_weight: float,
    tv_weight: float,
) -> Float[Tensor, "b h w"]:
    """Learn the masks of one batch.

    The loss is divided by 100 whatever the batch, so that a smaller last batch takes
    the same steps as a full one (Adam is scale-free but for its eps).

    Args:
        images: Images in [0, 1].
        fills: Colour per image and step, in [0, 1].
        model: Maps images to logits; it must be in eval mode. Gradients of its weights
            are computed and thrown away, as the official example does.
        lr: Step size of Adam.
        l1_weight: Weight of the L1 norm (alpha).
        tv_weight: Weight of the total variation (beta).

    Returns:
        The masks, in [0, 1].
    """
    with torch.no_grad():
        target = model(images)
    theta = torch.ones_like(images[:, :1]).requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=lr, betas=(0.1, 0.1))
    for step in range(fills.shape[1]):
        optimizer.zero_grad()
        model.zero_grad()
        mask = (torch.tanh(theta) + 1) / 2
        colour = fills[:, step, :, None, None]
        output = model(images * mask + (1 - mask) * colour)
        distance = (output - target).abs().mean(dim=1)
        norm = mask.abs().sum(dim=(1, 2, 3))
        loss = distance + l1_weight * norm + tv_weight * _roughness(mask)
        (loss.sum() / BATCH).backward()
        optimizer.step()
    mask = (torch.tanh(theta) + 1) / 2
    return mask.detach()[:, 0]


def _roughness(mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    down = (mask[:, :, 1:, :] - mask[:, :, :-1, :]) ** 2
    right = (mask[:, :, :, 1:] - mask[:, :, :, :-1]) ** 2
    area = mask.shape[2] * mask.shape[3]
    return (down.sum(dim=(1, 2, 3)) + right.sum(dim=(1, 2, 3))) / area
