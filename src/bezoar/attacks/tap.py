"""Targeted adversarial poisoning (Fowl et al., NeurIPS 2021, arXiv:2106.10807).

Each image is changed until a network trained on clean images takes it for another
class, always the same for one class, and keeps its own label. Whoever trains on that
learns features of one class under the name of another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.attacks.unlearnable import check_eps, check_rate, protect
from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import Architecture, frozen
from bezoar.results import Poisoned
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float
from bezoar.train import Training, shift_and_mirror, train_classifier


@dataclass(frozen=True, kw_only=True)
class TAP:
    """Adds noise, bounded in every value, that shows a network the next class.

    With its defaults, the published ones but for a single start, for a GPU.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        eps: Largest change of a value, in units of [0, 1].
        steps: Steps of the noise.
        step_rate: Size of a step, as a share of ``eps``.
        num_restarts: Starts, of which each image keeps the best; 8 as published.
        augment: Shift and mirror the images in every step.
        epochs: Passes over the images when the network is trained.
        batch_size: Images per step of the noise.
        arch: Network: "resnet18" as published, or "convnet".
        width: Channels of its first layer.

    Example:
        >>> from bezoar.data import noise_images
        >>> quick = TAP(steps=1, epochs=1, arch="convnet", width=4)
        >>> quick.poison(noise_images(4)).poison_rate
        1.0
    """

    poison_rate: float = 1.0
    eps: float = 8 / 255
    steps: int = 250
    step_rate: float = 0.05
    num_restarts: int = 1
    augment: bool = True
    epochs: int = 40
    batch_size: int = 512
    arch: str = "resnet18"
    width: int = 64

    def __post_init__(self) -> None:
        check_rate(self.poison_rate)
        check_eps(self.eps)
        wholes = self.steps, self.num_restarts, self.epochs, self.batch_size
        if min(wholes) < 1 or not self.step_rate > 0:
            raise InputError(
                "expected steps, num_restarts, epochs and batch_size of at least 1 and "
                f"step_rate above 0, got {', '.join(map(str, wholes))} and "
                f"{self.step_rate:g}; raise them"
            )

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Make a random share of the images unlearnable.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images, the network and the noise.
            runtime: Where to run.

        Returns:
            The poisoned set.
        """

        def change(chosen: ImageData) -> Tensor:
            noise = self.perturbation(chosen, seed=seed, runtime=runtime)
            return chosen.images.float() / 255 + noise

        return protect(
            data, name="tap", attack=self, change=change, seed=seed, runtime=runtime
        )

    def perturbation(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Float[Tensor, "n c h w"]:
        """Return what is added, before it is clipped.

        Args:
            data: Labelled images.
            seed: Seeds the network and the noise.
            runtime: Where to run.

        Returns:
            Noise within ``eps``.
        """
        num_classes = len(data.class_names)
        net = train_classifier(
            Architecture(
                name=self.arch, num_classes=num_classes, width=self.width
            ).build(seed),
            data=data,
            settings=Training(
                epochs=self.epochs,
                batch_size=128,
                augment="crop_flip" if self.augment else "none",
            ),
            seed=seed,
            runtime=runtime,
        ).to(runtime.device)
        stream, found = generator(seed, "tap"), []
        with frozen(net):
            for rows in torch.arange(len(data)).split(self.batch_size):
                clean = data.images[rows].to(runtime.device).float() / 255
                aim = ((data.labels[rows] + 1) % num_classes).to(runtime.device)
                found.append(self._best(net, clean, aim, stream).cpu())
                done = sum(map(len, found))
                runtime.progress(Progress(stage="craft", done=done, total=len(data)))
        return torch.cat(found)

    def _best(
        self, net: nn.Module, clean: Tensor, aim: Tensor, stream: torch.Generator
    ) -> Tensor:
        best, least = torch.zeros_like(clean), torch.full((len(clean),), torch.inf)
        for _ in range(self.num_restarts):
            noise = self._descended(net, clean, aim, stream)
            with torch.no_grad():
                loss = functional.cross_entropy(
                    net(clean + noise), aim, reduction="none"
                )
            better = loss.cpu() < least
            best[better.to(clean.device)] = noise[better.to(clean.device)]
            least = torch.minimum(least, loss.cpu())
        return best

    def _descended(
        self, net: nn.Module, clean: Tensor, aim: Tensor, stream: torch.Generator
    ) -> Tensor:
        start = 2 * torch.rand(clean.shape, generator=stream) - 1
        noise = self.eps * start.to(clean.device)
        pad = max(1, clean.shape[2] // 8)
        for _ in range(self.steps):
            noise = noise.detach().requires_grad_()
            shown = (clean + noise).clamp(0, 1)
            if self.augment:
                shown = shift_and_mirror(shown, stream, pad=pad)
            loss = functional.cross_entropy(net(shown), aim, reduction="sum")
            (slope,) = torch.autograd.grad(loss, noise)
            noise = noise.detach() - self.step_rate * self.eps * slope.sign()
            noise = noise.clamp(-self.eps, self.eps)
        return (clean + noise).clamp(0, 1) - clean
