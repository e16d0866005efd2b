"""The isolating training of Anti-Backdoor Learning, with every step written out.

Losses one image at a time, SGD with Nesterov momentum by hand, float32, no autocast
and no channels_last. It shares no code with ``bezoar.detect`` and ``bezoar.train``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bezoar.shapes import Float, Int64


def early_losses_plain(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    batches: Sequence[Sequence[Sequence[int]]],
    lr: float,
    weight_decay: float,
    floor: float | None,
) -> list[float]:
    """Train a copy of a network, and return the loss of every image at the end.

    Args:
        network: Maps images to logits; left as it was.
        images: Images in [0, 1].
        labels: Class indices.
        batches: Of each epoch, of each step, the images shown.
        lr: Step size.
        weight_decay: Weight decay.
        floor: The loss (gamma) below which a batch is climbed again; None trains
            plainly.

    Returns:
        Cross entropies in eval mode.
    """
    trained = copy.deepcopy(network).train()
    weights = list(trained.parameters())
    momenta = [torch.zeros_like(w) for w in weights]
    for epoch in batches:
        for rows in epoch:
            outputs = trained(images[list(rows)])
            loss = outputs.new_zeros(())
            for output, row in zip(outputs, rows, strict=True):
                loss = loss + _cross_entropy(output, int(labels[row])) / len(rows)
            if floor is not None and loss.item() < floor:
                loss = -loss
            slopes = torch.autograd.grad(loss, weights)
            for weight, momentum, slope in zip(weights, momenta, slopes, strict=True):
                pull = slope + weight_decay * weight.detach()
                momentum.mul_(0.9).add_(pull)
                weight.data.sub_(lr * (pull + 0.9 * momentum))
    trained.eval()
    with torch.no_grad():
        return [
            _cross_entropy(trained(image[None])[0], int(label)).item()
            for image, label in zip(images, labels, strict=True)
        ]


def _cross_entropy(output: Tensor, label: int) -> Tensor:
    highest = output.max()
    return highest + (output - highest).exp().sum().log() - output[label]
