"""Adversarial training (Madry et al., ICLR 2018, arXiv:1706.06083), to compare with.

A network that is trained on the worst of all images near those given cannot rely on
faint noise. It costs as many more passes as the adversary takes steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import InputError
from bezoar.models import frozen
from bezoar.shapes import Float, Int64


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Changes a batch so that the network in training errs more; for ``harden``.

    Attributes:
        eps: Largest change of a value, in units of [0, 1].
        step: Change of a value in one step.
        steps: Steps; the first begins at a random place about one step away.

    Example:
        >>> from bezoar.data import noise_images
        >>> from bezoar.train import Training, train_classifier
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> done = train_classifier(
        ...     net,
        ...     data=noise_images(8),
        ...     settings=Training(epochs=1),
        ...     harden=Adversary(steps=1),
        ... )
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and self.step > 0 and self.steps >= 1):
            raise InputError(
                "expected eps above 0 and at most 1, step above 0 and steps of at "
                f"least 1, got {self.eps:g}, {self.step:g} and {self.steps}; correct "
                "them"
            )

    def __call__(
        self,
        network: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        stream: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Return the images that the network is to be trained on.

        Args:
            network: The network in training; it comes back as it was.
            images: A batch in [0, 1].
            labels: Class indices.
            stream: Where the start comes from.

        Returns:
            Images within ``eps`` of those given.
        """
        start = torch.randn(images.shape, generator=stream).to(images.device)
        return ascended(
            network,
            images,
            labels,
            eps=self.eps,
            step=self.step,
            steps=self.steps,
            start=self.step * start,
        )


def ascended(
    network: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    *,
    eps: float,
    step: float,
    steps: int,
    start: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Climb the loss of the labels, within a bound in every value.

    Args:
        network: Maps images to logits; used in eval mode, and left as it was.
        images: A batch in [0, 1].
        labels: Class indices.
        eps: Largest change of a value.
        step: Change of a value in one step.
        steps: Steps.
        start: Change to begin with; None begins at the images.

    Returns:
        Images in [0, 1] within ``eps`` of those given.
    """
    noise = torch.zeros_like(images) if start is None else start.clamp(-eps, eps)
    with frozen(network):
        for _ in range(steps):
            noise = noise.detach().requires_grad_()
            output = network((images + noise).clamp(0, 1)).float()
            loss = functional.cross_entropy(output, labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, noise)
            noise = (noise.detach() + step * slope.sign()).clamp(-eps, eps)
    return (images + noise.detach()).clamp(0, 1)
