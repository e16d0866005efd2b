"""Training of classifiers: data as one uint8 tensor on the device, no loader.

Training is repeatable from its seed on one machine, and a killed training goes on
from its last checkpoint to the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train.augment import crop_and_flip
from bezoar.train.checkpoint import Checkpoint
from bezoar.train.epoch import Harden, run_epoch
from bezoar.train.ranks import Ranks

Objective = Callable[[Tensor, Tensor], Tensor]
Before = Callable[[nn.Module], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a classifier is trained.

    The defaults fit a small network to a small set; ``paper`` gives the protocol of
    Cognitive Distillation. Without augmentation on purpose: detectors read what a
    network memorised.

    Attributes:
        epochs: Passes over the data.
        lr: Highest step size of SGD with Nesterov momentum 0.9.
        weight_decay: Weight decay on all parameters.
        batch_size: Images per step; the last, smaller batch of an epoch is left out
            when it holds fewer than half of that.
        schedule: "one_cycle" (20 % linear warm-up, then cosine to 0) or "steps"
            (tenth at 75 % of the epochs) or "constant".
        augment: "none" or "crop_flip" (shift by up to an eighth, mirror).
    """

    epochs: int = 15
    lr: float = 0.1
    weight_decay: float = 5e-4
    batch_size: int = 64
    schedule: Literal["one_cycle", "steps", "constant"] = "one_cycle"
    augment: Literal["none", "crop_flip"] = "none"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(
                f"expected epochs and batch_size of at least 1, got {self.epochs} and "
                f"{self.batch_size}; raise them"
            )
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise InputError(
                f"expected lr above 0 and weight_decay of at least 0, got {self.lr} "
                f"and {self.weight_decay}; correct them"
            )

    @classmethod
    def paper(cls) -> Training:
        """Return the protocol of Huang et al. (2023) for CIFAR-10.

        Returns:
            60 epochs in steps without augmentation.
        """
        return cls(epochs=60, batch_size=100, schedule="steps")

    def rate(self, progress: float) -> float:
        """Return the step size when a share ``progress`` of the steps is done.

        Args:
            progress: From 0 to 1.

        Returns:
            The step size.
        """
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "steps":
            return self.lr * (0.1 if progress >= 0.75 else 1.0)
        if progress < 0.2:
            return self.lr * progress / 0.2
        return self.lr * (1 + math.cos(math.pi * (progress - 0.2) / 0.8)) / 2


def train_classifier(
    model: nn.Module,
    *,
    data: ImageData,
    settings: Training = Training(),
    objective: Objective = functional.cross_entropy,
    before_epoch: Before | None = None,
    harden: Harden | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> nn.Module:
    """Train a copy of a classifier.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Labelled images of at least two classes; others are an ``InputError``.
        settings: The protocol.
        objective: What is minimised, of logits and labels of a batch.
        before_epoch: Called with the network before each epoch that is trained; it
            may look, and has to leave the network as it was. What it returns are the
            places of the images that this epoch shows, None for all.
        harden: Changes each batch before it is learnt, such as ``Adversary``.
        seed: Seeds the order and the augmentation.
        runtime: Where and how to run; with ``work_dir`` a checkpoint is kept there
            and a killed training goes on from it; one that is over is read from it
            (``forget_training`` removes it). With ``distributed`` all processes return
            the same weights, and the first keeps the checkpoint.

    Returns:
        The trained copy in eval mode on the CPU.

    Raises:
        DivergedError: If the loss is not finite.
    """
    _check_classes(data)
    ranks = Ranks.of(runtime)
    _check_shared(ranks, harden)
    network = copy.deepcopy(model).to(runtime.device).train()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = data.images.to(runtime.device), data.labels.to(runtime.device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    started = {
        "seed": seed,
        "model": None if runtime.work_dir is None else fingerprint(model),
        "objective": getattr(objective, "__qualname__", type(objective).__qualname__),
        "harden": repr(harden),
    }
    checkpoint = Checkpoint.at(
        runtime.work_dir, settings={**asdict(settings), **started}, data=data
    )
    begun = checkpoint.load(network, optimizer)
    ranks.check(checkpoint.key, batch_size=settings.batch_size, done=begun)
    for epoch in range(begun, settings.epochs):
        shown = None if before_epoch is None else before_epoch(network)
        rows = slice(None) if shown is None else shown.to(runtime.device)
        loss, right = _train_epoch(
            network,
            optimizer,
            images[rows],
            labels[rows],
            settings=settings,
            objective=objective,
            harden=harden,
            epoch=epoch,
            seed=seed,
            dtype=runtime.compute_dtype(),
            ranks=ranks,
        )
        if not math.isfinite(loss):
            raise DivergedError(
                f"expected a finite loss, got {loss} in epoch {epoch + 1}; lower lr "
                f"({settings.lr})"
            )
        if ranks.leads:
            checkpoint.save(network, optimizer, epoch=epoch + 1)
        runtime.progress(
            Progress(
                stage="train",
                done=epoch + 1,
                total=settings.epochs,
                metrics={"loss": loss, "accuracy": right},
            )
        )
    trained: nn.Module = network.eval().cpu()
    return trained


def _check_classes(data: ImageData) -> None:
    num_classes = len(data.labels.unique()) if data.is_labelled else 0
    if num_classes < 2:
        raise InputError(
            f"expected labelled images of at least 2 classes to train on, got "
            f"{num_classes}; sort the images into one folder per class, or give a "
            "trained model"
        )


def _check_shared(ranks: Ranks, harden: Harden | None) -> None:
    if ranks.size > 1 and harden is not None:
        raise InputError(
            f"expected one process for a training that changes batches by {harden}, "
            f"got {ranks.size}; train in one process"
        )


def _train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    settings: Training,
    objective: Objective,
    harden: Harden | None,
    epoch: int,
    seed: int,
    dtype: torch.dtype,
    ranks: Ranks,
) -> tuple[float, float]:
    pad = max(1, images.shape[2] // 8)
    epoch_of = partial(
        run_epoch,
        network,
        optimizer,
        images,
        labels,
        loss=objective,
        rate=lambda done: settings.rate((epoch + done) / settings.epochs),
        batch_size=settings.batch_size,
        stream=generator(seed, "train", epoch),
        dtype=dtype,
        augment=(
            partial(crop_and_flip, pad=pad) if settings.augment == "crop_flip" else None
        ),
        harden=harden,
        ranks=ranks,
    )
    with ranks.synced(network):
        return epoch_of()
