"""Noise whose classes lie far apart (Ren et al., ICLR 2023, arXiv:2210.09437).

The part of transferable unlearnable examples that works on the noise alone: the
"class-wise separability discriminant". The published code adds it to the loss of a
self-supervised network, with a weight of 0 for that loss in two of its three
protocols; what is left moves the class means of the noise apart, and needs no network.
The self-supervised part is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.attacks.unlearnable import check_eps, check_rate, protect
from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.results import Poisoned
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64


@dataclass(frozen=True, kw_only=True)
class TUE:
    """Adds noise, bounded in every value, whose class means were driven apart.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        eps: Largest change of a value, in units of [0, 1].
        step: Change of a value in one step.
        steps: Steps; 20 of the published size reach the bound from any start.

    Example:
        >>> from bezoar.data import noise_images
        >>> TUE().poison(noise_images(4)).poison_rate
        1.0
    """

    poison_rate: float = 1.0
    eps: float = 8 / 255
    step: float = 0.8 / 255
    steps: int = 20

    def __post_init__(self) -> None:
        check_rate(self.poison_rate)
        check_eps(self.eps)
        if self.steps < 1 or not self.step > 0:
            raise InputError(
                "expected steps of at least 1 and step above 0, got "
                f"{self.steps} and {self.step:g}; raise them"
            )

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Make a random share of the images unlearnable.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images and the noise to begin with.
            runtime: Its progress is used.

        Returns:
            The poisoned set.
        """

        def change(chosen: ImageData) -> Tensor:
            noise = self.perturbation(chosen, seed=seed, runtime=runtime)
            return chosen.images.float() / 255 + noise

        return protect(
            data, name="tue", attack=self, change=change, seed=seed, runtime=runtime
        )

    def perturbation(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Float[Tensor, "n c h w"]:
        """Return what is added, before it is clipped.

        Args:
            data: Labelled images; only their labels and their size count.
            seed: Seeds the noise to begin with.
            runtime: Its progress is used.

        Returns:
            Noise within ``eps``.
        """
        start = torch.rand(data.images.shape, generator=generator(seed, "tue"))
        noise = (self.eps * (2 * start - 1)).flatten(1)
        _, places = data.labels.unique(return_inverse=True)
        for done in range(1, self.steps + 1):
            slope = centroid_slope(noise, places)
            noise = noise - self.step * slope.sign()[places]
            noise = noise.clamp(-self.eps, self.eps)
            runtime.progress(Progress(stage="craft", done=done, total=self.steps))
        return noise.view(data.images.shape)


def centroids(
    noise: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Return the mean noise of each class, and the mean distance to it.

    Args:
        noise: One row per image.
        labels: Classes from 0 on, none of them empty.

    Returns:
        The means m and the distances S.
    """
    counts = torch.bincount(labels).float()
    means = torch.zeros(len(counts), noise.shape[1]).index_add_(0, labels, noise)
    means /= counts[:, None]
    apart = torch.cat(
        [  # in parts: the differences of all would be another copy of the noise
            (part - means[own]).norm(dim=1)
            for part, own in zip(noise.split(1024), labels.split(1024), strict=True)
        ]
    )
    spread = torch.zeros(len(counts)).index_add_(0, labels, apart) / counts
    return means, spread


def centroid_slope(
    noise: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, "k d"]:
    """Return the slope of the discriminant, up to a positive factor for each class.

    The discriminant is the mean over pairs of classes of (S_a + S_b) / |m_a - m_b|; as
    in the published code S is taken for constant, so that only the means move, and all
    images of a class alike.

    Args:
        noise: One row per image.
        labels: Classes from 0 on, none of them empty.

    Returns:
        -sum over b of (S_a + S_b) (m_a - m_b) / |m_a - m_b|^3 for each class a.
    """
    means, spread = centroids(noise, labels)
    distance = torch.cdist(means, means).clamp(min=1e-12)
    pull = (spread[:, None] + spread[None]) / distance**3
    pull.fill_diagonal_(0)
    return pull @ means - pull.sum(1, keepdim=True) * means
