"""Robust error-minimising noise (Fu et al., ICLR 2022, arXiv:2203.14533).

As error-minimising noise, but made to help a network even after shifts, mirrors and an
adversary's own noise, so that adversarial training does not undo it.
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
from bezoar.train import ascended, shift_and_mirror

_LR, _DROP_EVERY = 0.1, 2 / 5  # share of the steps after which lr falls to a tenth


@dataclass(frozen=True, kw_only=True)
class REM:
    """Adds noise, bounded in every value, that withstands adversarial training.

    With its defaults, the published ones, hours of a GPU.

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 1.
        eps: Largest change of a value, in units of [0, 1].
        step: Change of a value in one step of the noise.
        steps: Steps of the noise.
        adversary_eps: Bound of the adversary that it has to withstand.
        adversary_step: Change of a value in one step of the adversary.
        adversary_steps: Steps of the adversary.
        num_views: Shifted and mirrored views that a step of the noise averages.
        train_steps: Batches that the network is trained on.
        batch_size: Images per step.
        arch: Network: "resnet18" as published, or "convnet".
        width: Channels of its first layer.

    Example:
        >>> from bezoar.data import noise_images
        >>> quick = REM(train_steps=1, steps=1, num_views=1, arch="convnet", width=4)
        >>> quick.poison(noise_images(4)).poison_rate
        1.0
    """

    poison_rate: float = 1.0
    eps: float = 8 / 255
    step: float = 1.6 / 255
    steps: int = 10
    adversary_eps: float = 4 / 255
    adversary_step: float = 0.8 / 255
    adversary_steps: int = 10
    num_views: int = 5
    train_steps: int = 5000
    batch_size: int = 128
    arch: str = "resnet18"
    width: int = 64

    def __post_init__(self) -> None:
        check_rate(self.poison_rate)
        check_eps(self.eps)
        wholes = self.steps, self.num_views, self.train_steps, self.batch_size
        if min(wholes) < 1 or self.adversary_steps < 0:
            raise InputError(
                "expected steps, num_views, train_steps and batch_size of at least 1 "
                f"and adversary_steps of at least 0, got {', '.join(map(str, wholes))} "
                f"and {self.adversary_steps}; raise them"
            )
        if min(self.step, self.adversary_step, self.adversary_eps) <= 0:
            raise InputError(
                "expected step, adversary_step and adversary_eps above 0, got "
                f"{self.step:g}, {self.adversary_step:g} and {self.adversary_eps:g}; "
                "raise them"
            )

    def poison(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Poisoned:
        """Make a random share of the images unlearnable.

        Args:
            data: Clean, labelled images; they stay as they are.
            seed: Seeds the choice of the images, the network and the order.
            runtime: Where to run; its progress tells the share that the network gets
                wrong in spite of the noise, once the adversary has answered it.

        Returns:
            The poisoned set.
        """

        def change(chosen: ImageData) -> Tensor:
            noise = self.perturbation(chosen, seed=seed, runtime=runtime)
            return chosen.images.float() / 255 + noise

        return protect(
            data, name="rem", attack=self, change=change, seed=seed, runtime=runtime
        )

    def perturbation(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Float[Tensor, "n c h w"]:
        """Return what is added, before it is clipped.

        Args:
            data: Labelled images.
            seed: Seeds the network and the order.
            runtime: Where to run.

        Returns:
            Noise within ``eps``.
        """
        net: nn.Module = Architecture(
            name=self.arch, num_classes=len(data.class_names), width=self.width
        ).build(seed)
        net = net.to(runtime.device)
        sgd = torch.optim.SGD(net.parameters(), lr=_LR, momentum=0.9, weight_decay=5e-4)
        stream, size = generator(seed, "rem"), min(self.batch_size, len(data))
        for number in range(self.train_steps):
            for group in sgd.param_groups:
                group["lr"] = _LR * 0.1 ** int(number / self.train_steps / _DROP_EVERY)
            rows = torch.randperm(len(data), generator=stream)[:size]
            clean, labels = _batch(data, rows, runtime.device)
            noise = self._descended(net, clean, labels, stream)
            shown = self._view((clean + noise).clamp(0, 1), stream)
            hard = self._hardened(net, shown, labels)
            net.train()
            loss = functional.cross_entropy(net(hard), labels)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            runtime.progress(
                Progress(stage="train", done=number + 1, total=self.train_steps)
            )
        found = []
        for rows in torch.arange(len(data)).split(self.batch_size):
            clean, labels = _batch(data, rows, runtime.device)
            noise = self._descended(net, clean, labels, stream)
            found.append(noise.cpu())
            runtime.progress(
                Progress(
                    stage="craft",
                    done=sum(map(len, found)),
                    total=len(data),
                    metrics={"error": self._error(net, clean + noise, labels)},
                )
            )
        return torch.cat(found)

    def _error(self, net: nn.Module, shown: Tensor, labels: Tensor) -> float:
        hard = self._hardened(net, shown, labels)
        with frozen(net), torch.no_grad():
            wrong = net(hard).argmax(1) != labels
        share: float = wrong.float().mean().item()
        return share

    def _descended(
        self, net: nn.Module, clean: Tensor, labels: Tensor, stream: torch.Generator
    ) -> Tensor:
        start = 2 * torch.rand(clean.shape, generator=stream) - 1
        noise = self.eps * start.to(clean.device)
        with frozen(net):
            for _ in range(self.steps):
                slope = torch.zeros_like(noise)
                for _ in range(self.num_views):
                    own = noise.detach().requires_grad_()
                    shown = self._view((clean + own).clamp(0, 1), stream)
                    # The adversary's answer is taken for constant, as published.
                    hard = shown + (self._hardened(net, shown, labels) - shown).detach()
                    loss = functional.cross_entropy(net(hard), labels, reduction="sum")
                    slope += torch.autograd.grad(loss, own)[0]
                noise = (noise - self.step * slope.sign()).clamp(-self.eps, self.eps)
        return (clean + noise).clamp(0, 1) - clean

    def _hardened(self, net: nn.Module, shown: Tensor, labels: Tensor) -> Tensor:
        return ascended(
            net,
            shown.detach(),
            labels,
            eps=self.adversary_eps,
            step=self.adversary_step,
            steps=self.adversary_steps,
        )

    def _view(self, images: Tensor, stream: torch.Generator) -> Tensor:
        return shift_and_mirror(images, stream, pad=max(1, images.shape[2] // 8))


def _batch(
    data: ImageData, rows: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    return data.images[rows].to(device).float() / 255, data.labels[rows].to(device)
