"""The kernel of Cognitive Distillation: masks by sign-like descent, in closed form.

Autograd is used through the model alone. The mask, its L1 norm, its total variation
and Adam are a few lines of algebra on float32 state, so a step costs one forward and
one backward pass to the input and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.runtime import generator
from bezoar.shapes import Float

EPS = 1e-6  # with the sum over images: the official mean over 100 with 1e-8


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """The numbers that define a mask; scores of other settings do not compare.

    Attributes:
        match: What the mask has to keep of the model's output.
        steps: Adam steps.
        lr: Step size of Adam on the mask's parameter theta.
        betas: Decay of Adam's moments.
        l1_weight: Weight of the mask's L1 norm (alpha).
        tv_weight: Weight of its total variation (beta).
        mask_scale: Pixels of the image per parameter of the mask along each side.
    """

    match: Literal["probabilities", "logits", "features"]
    steps: int
    lr: float
    betas: tuple[float, float]
    l1_weight: float
    tv_weight: float
    mask_scale: int


Background = Callable[[int], Tensor]
"""What stands in for masked pixels at a step: (b, c, 1, 1) or (b, c, h, w)."""


def flat(fills: Float[Tensor, "b steps c"]) -> Background:
    """Return a background of one colour per image and step.

    Args:
        fills: The colours, in [0, 1].

    Returns:
        The background.
    """
    return lambda step: fills[:, step, :, None, None]


def other_images(
    keys: Sequence[str], *, steps: int, pool: Float[Tensor, "m c h w"], seed: int
) -> Background:
    """Return a background of other images, drawn anew for each image and step.

    Args:
        keys: The images' content keys; each has a stream of its own.
        steps: Optimiser steps.
        pool: Images in [0, 1] to draw from.
        seed: The seed given to the method.

    Returns:
        The background.
    """
    shape = (steps,)
    drawn = [
        torch.randint(len(pool), shape, generator=generator(seed, "cd-fill", key))
        for key in keys
    ]
    places = torch.stack(drawn).to(pool.device)
    return lambda step: pool[places[:, step]]


def fill_colours(
    keys: Sequence[str], *, steps: int, channels: int, seed: int
) -> Float[Tensor, "b steps c"]:
    """Return the flat random colours that stand in for masked pixels.

    Args:
        keys: The images' content keys; each has a stream of its own.
        steps: Optimiser steps, one colour each.
        channels: Channels of the images.
        seed: The seed given to the method.

    Returns:
        Colours uniform in [0, 1] (delta in the paper).

    Example:
        >>> fill_colours(["a", "b"], steps=5, channels=3, seed=0).shape
        torch.Size([2, 5, 3])
    """
    streams = [generator(seed, "cd-fill", key) for key in keys]
    return torch.stack([torch.rand(steps, channels, generator=g) for g in streams])


def total_variation(mask: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Return each mask's squared differences of neighbours, summed, over h * w.

    Args:
        mask: Masks in [0, 1].

    Returns:
        The total variation (TV in the paper, as its code computes it).

    Example:
        >>> board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
        >>> total_variation(board[None].float()).item()
        1.9375
    """
    down = mask.diff(dim=1).square().flatten(1).sum(1)
    right = mask.diff(dim=2).square().flatten(1).sum(1)
    return (down + right) / mask[0].numel()


def distill_masks(
    images: Float[Tensor, "b c h w"],
    background: Background,
    *,
    forward: Callable[[Tensor], Tensor],
    settings: MaskSettings,
) -> Float[Tensor, "b h w"]:
    """Learn for each image the smallest mask that keeps the model's output.

    Minimises ``D(f(x), f(x m + (1 - m) delta)) + alpha sum(m) + beta TV(m)`` over theta
    with ``m = sigmoid(2 theta)`` (equation 1 of the paper). For logits and features D
    is the mean absolute difference, as in the official code; for probabilities it is
    the sum of absolute differences after a softmax, which is ours. The sum over images
    is minimised, so that company does not matter.

    Args:
        images: Images in [0, 1], float32.
        background: What stands in for masked pixels (delta), step by step, in [0, 1].
        forward: The model: float32 images to outputs with first axis b. Its
            weights take no gradient.
        settings: The numbers that define a mask.

    Returns:
        Masks in [0, 1]; 1 keeps the pixel.
    """
    spread = _Spread(images.shape[2:], scale=settings.mask_scale, like=images)
    theta = images.new_ones((len(images), *spread.coarse))
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    with torch.no_grad():
        target = forward(_as_input(images)).float()
    distance_slope = _SLOPES[settings.match]
    for step in range(settings.steps):
        coarse = torch.sigmoid(2 * theta)
        mask = spread.up(coarse)
        behind = background(step)
        contrast = images - behind
        mixed = _as_input(torch.addcmul(behind, contrast, mask[:, None]))
        mixed.requires_grad_()
        output = forward(mixed)
        slope = distance_slope(output.detach().float(), target)
        (grad,) = torch.autograd.grad(output, mixed, slope.to(output.dtype))
        to_mask = (contrast * grad).sum(1).add_(settings.l1_weight)
        _add_total_variation_gradient(to_mask, mask, weight=settings.tv_weight)
        to_theta = spread.down(to_mask).mul_(2 * coarse * (1 - coarse))
        _adam_(theta, first, second, to_theta, step=step + 1, settings=settings)
    return spread.up(torch.sigmoid(2 * theta))


def _slope_of_mean_difference(output: Tensor, target: Tensor) -> Tensor:
    return torch.sign(output - target).div_(target[0].numel())


def _slope_of_probabilities(output: Tensor, target: Tensor) -> Tensor:
    p = output.softmax(1)
    signs = torch.sign(p - target.softmax(1))
    # d/dz sum |p - p0| = J^T sign, with the softmax's Jacobian diag(p) - p p^T
    return p * (signs - (p * signs).sum(1, keepdim=True))


_SLOPES = {
    "probabilities": _slope_of_probabilities,
    "logits": _slope_of_mean_difference,
    "features": _slope_of_mean_difference,
}


def _as_input(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _add_total_variation_gradient(
    grad: Float[Tensor, "b h w"], mask: Float[Tensor, "b h w"], *, weight: float
) -> None:
    factor = 2 * weight / mask[0].numel()
    down, right = mask.diff(dim=1), mask.diff(dim=2)
    grad[:, 1:].add_(down, alpha=factor)
    grad[:, :-1].sub_(down, alpha=factor)
    grad[:, :, 1:].add_(right, alpha=factor)
    grad[:, :, :-1].sub_(right, alpha=factor)


def _adam_(
    theta: Tensor,
    first: Tensor,
    second: Tensor,
    grad: Tensor,
    *,
    step: int,
    settings: MaskSettings,
) -> None:
    """Take one step of Adam (Kingma and Ba, 2015) on ``theta`` in place."""
    beta1, beta2 = settings.betas
    first.lerp_(grad, 1 - beta1)
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    scale = second.div(1 - beta2**step).sqrt_().add_(EPS)
    theta.addcdiv_(first, scale, value=-settings.lr / (1 - beta1**step))


class _Spread:
    """Bilinear enlargement of a coarse mask, and its adjoint, as two small matrices."""

    def __init__(self, size: torch.Size, *, scale: int, like: Tensor) -> None:
        self.coarse = tuple(-(-side // scale) for side in size)
        self._rows = self._columns = None
        if scale > 1:
            self._rows, self._columns = (
                _bilinear_matrix(fine, coarse).to(like)
                for fine, coarse in zip(size, self.coarse, strict=True)
            )

    def up(self, coarse: Tensor) -> Tensor:
        if self._rows is None or self._columns is None:
            return coarse
        return self._rows @ coarse @ self._columns.T

    def down(self, fine: Tensor) -> Tensor:
        if self._rows is None or self._columns is None:
            return fine
        return self._rows.T @ fine @ self._columns


def _bilinear_matrix(fine: int, coarse: int) -> Float[Tensor, "fine coarse"]:
    place = ((torch.arange(fine) + 0.5) * coarse / fine - 0.5).clamp(0, coarse - 1)
    low = place.floor().long().clamp(max=max(coarse - 2, 0))
    high = (low + 1).clamp(max=coarse - 1)
    weight = place - low
    matrix = torch.zeros(fine, coarse)
    matrix[torch.arange(fine), low] += 1 - weight
    matrix[torch.arange(fine), high] += weight
    return matrix
