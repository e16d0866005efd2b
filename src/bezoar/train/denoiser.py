"""Training of denoisers on the low levels of noise that purification uses.

PureGen (https://arxiv.org/abs/2405.18627) trains a DDPM on the first 250 of 1000
levels: it never makes images from nothing, and its weights go into restoring them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models.diffusion import noised
from bezoar.models.unet import UNet
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import UInt8
from bezoar.train.ranks import check_alone
from bezoar.train.vae_checkpoint import VAECheckpoint


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """How a denoiser is trained: AdamW, a warm-up, then a cosine to 0.

    Attributes:
        channels: Of each level of the network; PureGen's middle size.
        num_blocks: Residual blocks of a level.
        num_levels: Levels of noise it learns, of 1000.
        epochs: Passes over the images.
        batch_size: Images per step.
        lr: Highest step size.
        warm_up: Steps until it is reached.
    """

    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256)
    num_blocks: int = 2
    num_levels: int = 250
    epochs: int = 150
    batch_size: int = 256
    lr: float = 1e-4
    warm_up: int = 500

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or not 1 <= self.num_levels <= 1000:
            raise InputError(
                "expected epochs and batch_size of at least 1 and num_levels from 1 to "
                f"1000, got {self.epochs}, {self.batch_size} and {self.num_levels}; "
                "correct them"
            )
        if not self.lr > 0 or self.warm_up < 0:
            raise InputError(
                f"expected lr above 0 and warm_up of at least 0, got {self.lr} and "
                f"{self.warm_up}; correct them"
            )

    @classmethod
    def quick(cls) -> DenoiserTraining:
        """Return settings for a first try on a CPU.

        Returns:
            A small network and few epochs.
        """
        return cls(
            channels=(32, 64, 64), num_blocks=1, epochs=10, batch_size=64, lr=5e-4
        )

    def rate(self, step: int, total: int) -> float:
        """Return the step size at a step.

        Args:
            step: From 0 on.
            total: Steps of the whole training.

        Returns:
            The step size.
        """
        warm_up = min(self.warm_up, total // 2)
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        share = (step - warm_up) / max(1, total - warm_up)
        return self.lr * (1 + math.cos(math.pi * share)) / 2


_DEFAULT = DenoiserTraining()


def train_denoiser(
    images: UInt8[Tensor, "n c h w"],
    *,
    settings: DenoiserTraining = _DEFAULT,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> UNet:
    """Train a denoiser on images that need no labels.

    Repeatable from its seed on one machine.

    Args:
        images: The images.
        settings: How to train; ``DenoiserTraining.quick()`` for a CPU.
        seed: Seeds weights, batches, levels and noise.
        runtime: Where and how to run; with ``work_dir`` a killed training goes on from
            its last epoch (``forget_training`` removes what is kept).

    Returns:
        The network in eval mode on the CPU.

    Raises:
        DivergedError: If the loss is not finite.

    Example:
        >>> from bezoar.data import noise_images
        >>> tiny = DenoiserTraining(channels=(4, 4), num_blocks=1, epochs=1)
        >>> train_denoiser(noise_images(4).images, settings=tiny).card["epochs"]
        1
    """
    check_alone(runtime, "a denoiser")
    check_images(images)
    net = UNet(
        channels=settings.channels,
        num_blocks=settings.num_blocks,
        in_channels=images.shape[1],
        seed=seed,
    ).to(runtime.device)
    net.num_levels = settings.num_levels
    adam = torch.optim.AdamW(net.parameters(), lr=settings.lr)
    checkpoint = VAECheckpoint.at(
        runtime.work_dir,
        stage="denoiser",
        settings={**asdict(settings), "seed": seed},
        data=_unlabelled(images),
    )
    history = checkpoint.load(net, adam)
    per_epoch = math.ceil(len(images) / settings.batch_size)
    for epoch in range(len(history), settings.epochs):
        stream = generator(seed, "denoiser", epoch)
        order = torch.randperm(len(images), generator=stream)
        sums = []
        for place, rows in enumerate(order.split(settings.batch_size)):
            for group in adam.param_groups:
                total = per_epoch * settings.epochs
                group["lr"] = settings.rate(epoch * per_epoch + place, total)
            sums.append(_step(net, adam, images[rows], stream=stream, runtime=runtime))
        loss = torch.stack(sums).mean().item()
        if not math.isfinite(loss):
            raise DivergedError(
                f"expected a finite loss, got {loss} in epoch {epoch + 1}; lower lr "
                f"({settings.lr})"
            )
        metrics = {"loss": loss}
        history = (*history, metrics)
        checkpoint.save(net, adam, history=history)
        total = settings.epochs
        runtime.progress(
            Progress(stage="train", done=epoch + 1, total=total, metrics=metrics)
        )
    net.card = {
        "settings": asdict(settings),
        "seed": seed,
        "epochs": settings.epochs,
        "num_images": len(images),
        "losses": [row["loss"] for row in history],
    }
    return net.cpu().eval().requires_grad_(False)


def _unlabelled(images: Tensor) -> ImageData:
    return ImageData(
        images=images,
        labels=torch.zeros(len(images), dtype=torch.int64),
        ids=tuple(map(str, range(len(images)))),
        class_names=("any",),
    )


def _step(
    net: UNet,
    adam: torch.optim.AdamW,
    batch: Tensor,
    *,
    stream: torch.Generator,
    runtime: Runtime,
) -> Tensor:
    states = (batch.float() / 127.5 - 1).to(runtime.device)
    levels = torch.randint(net.num_levels, (len(batch),), generator=stream)
    noise = torch.randn(states.shape, generator=stream).to(runtime.device)
    levels, dtype = levels.to(runtime.device), runtime.compute_dtype()
    half = dtype != torch.float32
    with torch.autocast(runtime.device.type, dtype, enabled=half):
        guess = net(noised(states, levels=levels, noise=noise), levels)
    loss = functional.mse_loss(guess.float(), noise)
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.detach()
