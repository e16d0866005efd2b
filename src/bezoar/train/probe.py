"""Training of a classifier on the vectors of a frozen encoder.

Jia, Liu and Gong, BadEncoder, 2021, https://arxiv.org/abs/2108.00352, section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.errors import DivergedError, InputError
from bezoar.models.heads import MLPHead
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64
from bezoar.train.epoch import drawing_from


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """How a classifier on fixed vectors is trained; the defaults are quick.

    Attributes:
        epochs: Passes over the vectors.
        lr: Step size of Adam.
        batch_size: Vectors per step.
        shuffle: Draw the order anew for each epoch; without it, sets that are sorted
            by class mislead.
    """

    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 1024
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.lr > 0:
            raise InputError(
                "expected epochs and batch_size of at least 1 and lr above 0, got "
                f"{self.epochs}, {self.batch_size} and {self.lr}; raise them"
            )

    @classmethod
    def paper(cls) -> HeadTraining:
        """Return the published protocol.

        Returns:
            500 epochs at 1e-4 in steps of 64, in the order given.
        """
        return cls(epochs=500, lr=1e-4, batch_size=64, shuffle=False)


def train_head(
    vectors: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    num_classes: int,
    *,
    settings: HeadTraining = HeadTraining(),
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> MLPHead:
    """Train a classifier with two hidden layers.

    Args:
        vectors: What the encoder makes of images, of length 1.
        labels: Their classes.
        num_classes: Logits.
        settings: The protocol.
        seed: Seeds weights, order and dropout.
        runtime: Where to run.

    Returns:
        The classifier in eval mode on the CPU.

    Raises:
        DivergedError: If the loss is not finite.
    """
    device = runtime.device
    head = MLPHead(vectors.shape[1], num_classes, seed=seed).to(device).train()
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.lr)
    rows, truth = vectors.to(device), labels.to(device)
    for epoch in range(settings.epochs):
        stream = generator(seed, "head", epoch)
        order = torch.arange(len(rows))
        if settings.shuffle:
            order = torch.randperm(len(rows), generator=stream)
        losses = []
        with drawing_from(stream, device):
            for picked in order.to(device).split(settings.batch_size):
                loss = functional.cross_entropy(head(rows[picked]), truth[picked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
        value = torch.stack(losses).mean().item()
        if not math.isfinite(value):
            raise DivergedError(
                f"expected a finite loss of the head, got {value} in epoch "
                f"{epoch + 1}; lower lr ({settings.lr})"
            )
        runtime.progress(
            Progress(
                stage="head",
                done=epoch + 1,
                total=settings.epochs,
                metrics={"loss": value},
            )
        )
    trained: MLPHead = head.eval().cpu().requires_grad_(False)
    return trained
