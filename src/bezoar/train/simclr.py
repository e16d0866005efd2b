"""Pre-training of encoders: contrastive without labels, or with them where it may.

Chen et al. (SimCLR), 2020, https://arxiv.org/abs/2002.05709; with labels Khosla et al.
(SupCon), 2020, https://arxiv.org/abs/2004.11362. The images lie on the device as they
are stored, and views are made there a batch at a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models import SimCLR, fingerprint
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train.encoder_losses import nt_xent, sup_con
from bezoar.train.ranks import Ranks
from bezoar.train.vae_checkpoint import History, VAECheckpoint
from bezoar.train.views import Views


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """How an encoder is pre-trained; the defaults are those of published encoders.

    Attributes:
        objective: "nt_xent" finds the other view of the same image and needs no
            labels; "sup_con" finds images of the same class.
        epochs: Passes over the images.
        lr: Highest step size of Adam.
        weight_decay: Weight decay on all parameters, as part of the gradient.
        batch_size: Images per step; a last, smaller batch is dropped.
        temperature: Divides the cosines (tau).
        schedule: "constant", or "cosine" to 0.
        views: How views are drawn.
    """

    objective: Literal["nt_xent", "sup_con"] = "nt_xent"
    epochs: int = 1000
    lr: float = 1e-3
    weight_decay: float = 1e-6
    batch_size: int = 256
    temperature: float = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    views: Views = field(default_factory=Views)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(
                "expected epochs of at least 1 and batch_size of at least 2, got "
                f"{self.epochs} and {self.batch_size}; raise them"
            )
        if not (self.lr > 0 and self.temperature > 0 and self.weight_decay >= 0):
            raise InputError(
                "expected lr and temperature above 0 and weight_decay of at least 0, "
                f"got {self.lr}, {self.temperature} and {self.weight_decay}; correct "
                "them"
            )

    @classmethod
    def tiny(cls) -> EncoderTraining:
        """Return settings that make a small encoder of a few thousand images.

        It is told the classes, for without them a small set takes far longer.

        Returns:
            Six epochs of supervised contrast.
        """
        return cls(
            objective="sup_con",
            epochs=6,
            lr=3e-3,
            batch_size=128,
            temperature=0.1,
            schedule="cosine",
            views=Views(crop_area=(0.4, 1.0)),
        )


def train_simclr(
    encoder: SimCLR,
    *,
    data: ImageData,
    settings: EncoderTraining = EncoderTraining(),
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> SimCLR:
    """Train a copy of an encoder and its projector.

    Both views of a batch go through the network one after the other, so that batch
    norms see one view at a time, as in the published code.

    Args:
        encoder: Where to start; it is left as it was.
        data: Images; labels are used by "sup_con" alone.
        settings: The protocol.
        seed: Seeds the order and the views.
        runtime: Where and how to run; with ``work_dir`` a checkpoint is kept there and
            a killed training goes on from it; one that is over is read from it. With
            ``distributed`` the first process keeps it.

    Returns:
        The trained copy in eval mode on the CPU.

    Raises:
        InputError: If labels are needed and there are none.
        DivergedError: If the loss is not finite.
    """
    if settings.objective == "sup_con" and not data.is_labelled:
        raise InputError(
            "expected labelled images for supervised contrast, got none; give labels, "
            'or train with objective="nt_xent"'
        )
    ranks = Ranks.of(runtime)
    network = copy.deepcopy(encoder).to(runtime.device).train().requires_grad_(True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    started = {"seed": seed, "encoder": fingerprint(encoder)}
    checkpoint = VAECheckpoint.at(
        runtime.work_dir,
        stage="simclr",
        settings={**asdict(settings), **started},
        data=data,
    )
    images, labels = data.images.to(runtime.device), data.labels.to(runtime.device)
    history = checkpoint.load(network, optimizer)
    size = min(settings.batch_size, len(data))
    ranks.check(checkpoint.key, batch_size=size, done=len(history))
    if history:
        _report(history, settings, runtime)
    for epoch in range(len(history), settings.epochs):
        steps = _steps(
            network,
            optimizer,
            images,
            labels,
            settings=settings,
            epoch=epoch,
            seed=seed,
            dtype=runtime.compute_dtype(),
            ranks=ranks,
        )
        with ranks.synced(network):
            losses = list(steps)
        loss = torch.stack(losses).mean().item()
        if not math.isfinite(loss):
            raise DivergedError(
                f"expected a finite loss, got {loss} in epoch {epoch + 1}; lower lr "
                f"({settings.lr})"
            )
        history = (*history, {"loss": loss})
        if ranks.leads:
            checkpoint.save(network, optimizer, history=history)
        _report(history, settings, runtime)
    trained: SimCLR = network.cpu().eval()
    return trained


def _report(history: History, settings: EncoderTraining, runtime: Runtime) -> None:
    runtime.progress(
        Progress(
            stage="pre-train",
            done=len(history),
            total=settings.epochs,
            metrics=history[-1],
        )
    )


def _steps(
    network: SimCLR,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    settings: EncoderTraining,
    epoch: int,
    seed: int,
    dtype: torch.dtype,
    ranks: Ranks,
) -> Iterator[Tensor]:
    # Yields the loss of each step of one epoch.
    stream = generator(seed, "simclr", epoch)
    size = min(settings.batch_size, len(images))
    order = torch.randperm(len(images), generator=stream).to(images.device)
    batches = order.split(size)[: len(images) // size]
    for step, picked in enumerate(batches):
        done = (epoch + step / len(batches)) / settings.epochs
        for group in optimizer.param_groups:
            group["lr"] = _rate(settings, done)
        # The loss looks at all pairs: every process has all projections, and counts
        # the same loss, of which it keeps its part.
        views = settings.views(images[picked], stream)
        first = ranks.whole(_projected(network, ranks.share(views), dtype), size)
        if settings.objective == "sup_con":  # labels make the pairs: one view will do
            loss = sup_con(first, labels[picked], temperature=settings.temperature)
        else:
            views = settings.views(images[picked], stream)
            second = ranks.whole(_projected(network, ranks.share(views), dtype), size)
            loss = nt_xent(first, second, temperature=settings.temperature)
        optimizer.zero_grad()
        ranks.backward(loss, network, weight=1 / ranks.size)
        optimizer.step()
        yield loss.detach()


def _projected(network: SimCLR, shown: Tensor, dtype: torch.dtype) -> Tensor:
    half = dtype != torch.float32
    shown = shown.contiguous(memory_format=torch.channels_last)
    with torch.autocast(shown.device.type, dtype, enabled=half):
        projections: Tensor = network(shown).projections
    return projections


def _rate(settings: EncoderTraining, done: float) -> float:
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * (1 + math.cos(math.pi * done)) / 2
