"""Friendly noise: as much as a network does not mind, against poison it would mind.

Liu, Yang and Mirzasoleiman, "Friendly Noise against Adversarial Noise: A Powerful
Defense against Data Poisoning Attacks", NeurIPS 2022, https://arxiv.org/abs/2208.10224.
Poison needs a sharp slope of the loss where it lies. Each image gets noise of its own
that is large and changes the network's output little, and fresh noise at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData, content_keys
from bezoar.errors import InputError
from bezoar.models import frozen_folded
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64, UInt8
from bezoar.train.loop import Training, train_classifier

_MOMENTUM = 0.9
_DECAYS = (0.5, 0.75)  # of the steps; a tenth of the step size from each on


@dataclass(frozen=True, kw_only=True)
class FriendlyNoise:
    """Finds for each image the large noise that changes a network's output least.

    Every image is treated by itself.

    Attributes:
        eps: Largest change of a value, in units of [0, 1]; 32/255 in the public code.
        start_eps: Largest change of a value at the start, which is uniform noise.
        size_weight: Of the mean square of the noise, which is to be large (mu).
        lr: Step size of SGD with Nesterov momentum 0.9; a tenth after half of the
            steps, and again after three quarters.
        steps: Steps.

    Example:
        >>> from bezoar.data import noise_images
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> data = noise_images(4)
        >>> images = FriendlyNoise(steps=2).added(data.images, model=net)
        >>> int((images.int() - data.images.int()).abs().max()) <= 16
        True
    """

    eps: float = 16 / 255
    start_eps: float = 8 / 255
    size_weight: float = 16.0
    lr: float = 100.0
    steps: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.start_eps <= self.eps <= 1:
            raise InputError(
                "expected start_eps above 0 and up to eps, and eps of at most 1, got "
                f"{self.start_eps:g} and {self.eps:g}; correct them"
            )
        if self.steps < 1 or not (self.lr > 0 and self.size_weight >= 0):
            raise InputError(
                "expected steps of at least 1, lr above 0 and size_weight of at least "
                f"0, got {self.steps}, {self.lr:g} and {self.size_weight:g}; correct "
                "them"
            )

    def added(
        self,
        images: UInt8[Tensor, "n c h w"],
        *,
        model: nn.Module,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> UInt8[Tensor, "n c h w"]:
        """Return images with their noise, rounded to what can be stored.

        Args:
            images: Images as they are stored.
            model: Maps images in [0, 1] to logits; it is left as it was. As published,
                one that was trained for 5 epochs on these images, or the given one
                where only a linear layer is to be trained.
            seed: Seeds the start, image by image.
            runtime: Where and how to run.

        Returns:
            Images of the same shape; no value changed by more than ``eps``.
        """
        copy = frozen_folded(
            model, device=runtime.device, dtype=runtime.compute_dtype()
        )
        most = int(255 * self.eps + 1e-3)  # whole levels: no rounding leaves the bound
        parts = []
        for part in images.split(runtime.batch_size):
            shown = part.float() / 255
            noise = self.found(
                copy,
                shown.to(runtime.device),
                start=self._start(part, seed=seed).to(runtime.device),
            )
            levels = (255 * noise.cpu()).round().clamp(-most, most)
            parts.append((part + levels).clamp(0, 255).to(torch.uint8))
            done = sum(map(len, parts))
            runtime.progress(Progress(stage="noise", done=done, total=len(images)))
        return torch.cat(parts)

    def found(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        *,
        start: Float[Tensor, "b c h w"],
    ) -> Float[Tensor, "b c h w"]:
        """Descend to friendly noise.

        Args:
            model: A frozen model in eval mode.
            images: A batch in [0, 1].
            start: Noise to begin with.

        Returns:
            Noise within ``eps`` that keeps the images in [0, 1].
        """

        def within(noise: Tensor) -> Tensor:
            bounded = noise.clamp(-self.eps, self.eps)
            return (images + bounded).clamp(0, 1) - images

        with torch.no_grad():
            clean = model(images).float()
        noise, momentum = within(start), torch.zeros_like(images)
        for step in range(self.steps):
            lr = self.lr * 0.1 ** sum(step >= d * self.steps for d in _DECAYS)
            noise.requires_grad_()
            noisy = model(images + noise).float()
            # A sum over the images: the steps of one do not depend on the others.
            loss = disturbance(noisy, clean, noise, size_weight=self.size_weight).sum()
            (slope,) = torch.autograd.grad(loss, noise)
            momentum = _MOMENTUM * momentum + slope
            noise = within(noise.detach() - lr * (slope + _MOMENTUM * momentum))
        return noise

    def _start(self, images: Tensor, *, seed: int) -> Tensor:
        drawn = [
            torch.rand(images.shape[1:], generator=generator(seed, "friendly", key))
            for key in content_keys(images)
        ]
        return self.start_eps * (2 * torch.stack(drawn) - 1)


def disturbance(
    noisy: Float[Tensor, "b k"],
    clean: Float[Tensor, "b k"],
    noise: Float[Tensor, "b c h w"],
    *,
    size_weight: float,
) -> Float[Tensor, " b"]:
    """Return what friendly noise makes small.

    Args:
        noisy: Logits of the images with their noise.
        clean: Logits of the images.
        noise: The noise.
        size_weight: Weight (mu) of its size.

    Returns:
        ``KL(softmax noisy || softmax clean) - mu mean(noise^2)``, image by image.

    Example:
        >>> same, noise = torch.zeros(1, 2), torch.full((1, 1, 2, 2), 0.5)
        >>> disturbance(same, same, noise, size_weight=4.0).item()
        -1.0
    """
    there, here = noisy.log_softmax(1), clean.log_softmax(1)
    moved = functional.kl_div(here, there, reduction="none", log_target=True).sum(1)
    return moved - size_weight * noise.square().mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """Adds fresh noise to each batch that is learnt; for ``harden``.

    Attributes:
        kind: "bernoulli" (plus or minus ``eps`` in each value) or "gaussian" (of this
            deviation).
        eps: Size of the noise, in units of [0, 1].

    Example:
        >>> images = torch.full((1, 1, 2, 2), 0.5)
        >>> noisy = RandomNoise(eps=0.25).added(images, stream=torch.Generator())
        >>> set(noisy.flatten().tolist()) <= {0.25, 0.75}
        True
    """

    kind: Literal["bernoulli", "gaussian"] = "bernoulli"
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise InputError(
                f"expected eps above 0 and at most 1, got {self.eps:g}; it is in units "
                "of [0, 1], such as 8/255"
            )

    def __call__(
        self,
        network: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        stream: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Return the images with fresh noise.

        Args:
            network: Not looked at.
            images: A batch in [0, 1].
            labels: Not looked at.
            stream: Where the noise comes from.

        Returns:
            Images in [0, 1].
        """
        del network, labels
        return self.added(images, stream=stream)

    def added(
        self, images: Float[Tensor, "b c h w"], *, stream: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return images with fresh noise.

        Args:
            images: Images in [0, 1].
            stream: Where the noise comes from.

        Returns:
            Images in [0, 1].
        """
        seed = int(torch.randint(2**62, (1,), generator=stream))
        drawn = torch.Generator(images.device).manual_seed(seed)
        noise = torch.empty_like(images)
        if self.kind == "gaussian":
            noise.normal_(generator=drawn)
        else:
            noise.bernoulli_(0.5, generator=drawn).mul_(2).sub_(1)
        return (images + self.eps * noise).clamp(0, 1)


def train_with_friendly_noise(
    model: nn.Module,
    *,
    data: ImageData,
    settings: Training,
    friendly: FriendlyNoise = FriendlyNoise(),
    fresh: RandomNoise = RandomNoise(),
    warm_up_epochs: int = 5,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> nn.Module:
    """Train a copy of a classifier on images with friendly and with fresh noise.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Labelled images of at least two classes; others are an ``InputError``.
        settings: The protocol of the training with noise.
        friendly: How each image's own noise is found.
        fresh: What is added at every step.
        warm_up_epochs: Epochs of a training without noise whose network the friendly
            noise is for; 0 takes ``model`` as it is.
        seed: Seeds both trainings and the noise.
        runtime: Where and how to run; the first training is kept in a folder
            "warm-up" of ``work_dir``.

    Returns:
        The trained copy in eval mode on the CPU.
    """
    judge = model
    if warm_up_epochs > 0:
        folder = runtime.work_dir and runtime.work_dir / "warm-up"
        judge = train_classifier(
            model,
            data=data,
            settings=replace(settings, epochs=warm_up_epochs),
            seed=seed,
            runtime=replace(runtime, work_dir=folder),
        )
    images = friendly.added(data.images, model=judge, seed=seed, runtime=runtime)
    return train_classifier(
        model,
        data=replace(data, images=images),
        settings=settings,
        harden=fresh,
        seed=seed,
        runtime=runtime,
    )
