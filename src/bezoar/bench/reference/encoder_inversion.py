"""The search for one patch, with Adam and the pairs of images written out.

It shares no code with ``bezoar.detect.trigger_inversion``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bezoar.shapes import Float, Int64


def smallest_patch_plain(
    encoder: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    *,
    start: tuple[Tensor, Tensor],
    batches: Sequence[Int64[Tensor, " b"]],
    lrs: Sequence[float],
    target: float,
    weight: float,
    factor: float,
    patience: int,
) -> tuple[float, Tensor]:
    """Search from one start.

    Args:
        encoder: From images in [0, 1] to vectors.
        images: The images.
        start: Raw mask (h, w) and raw pattern (c, h, w).
        batches: Which images each step shows.
        lrs: Step size of each step.
        target: Mean cosine to be reached.
        weight: Weight of the mask's sum at the start.
        factor: What it is multiplied or divided by.
        patience: Steps in a row before it is.

    Returns:
        The smallest area at which the target was reached, and its mask.
    """
    raw = [part.clone().requires_grad_() for part in start]
    first = [torch.zeros_like(part) for part in raw]
    second = [torch.zeros_like(part) for part in raw]
    above = below = 0
    best, kept = 1.0, torch.empty(0)
    for step, (rows, lr) in enumerate(zip(batches, lrs, strict=True), start=1):
        mask, pattern = (0.5 + 0.5 * part.tanh() for part in raw)
        vectors = []
        for row in rows.tolist():
            image = images[row]
            shown = image * (1 - mask) + pattern * mask
            vector = encoder(shown[None])[0]
            vectors.append(vector / vector.square().sum().sqrt())
        pairs = [
            (vectors[i] * vectors[j]).sum()
            for i in range(len(vectors))
            for j in range(len(vectors))
            if i != j
        ]
        cosine = torch.stack(pairs).mean()
        slopes = torch.autograd.grad(weight * mask.sum() - cosine, raw)
        if cosine.item() > target:
            area = mask.mean().item()
            if area < best:
                best, kept = area, mask.detach().clone()
            above, below = above + 1, 0
        else:
            above, below = 0, below + 1
        with torch.no_grad():
            for place, slope in enumerate(slopes):
                first[place] = 0.5 * first[place] + 0.5 * slope
                second[place] = 0.9 * second[place] + 0.1 * slope**2
                mean = first[place] / (1 - 0.5**step)
                spread = (second[place] / (1 - 0.9**step)).sqrt()
                raw[place] -= lr * mean / (spread + 1e-8)
        if above >= patience:
            weight, above = weight * factor, 0
        elif below >= patience:
            weight, below = weight / factor, 0
    return best, kept
