"""How encoders do downstream: accuracy, and what a trigger does, beside the floor.

Each encoder gets a head of its own on the clean vectors of a labelled set. Success of
an attack is counted on images of other classes, and stands beside that of a clean
encoder: an encoder may send a quarter of all images to the target and be clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models.heads import ridge_head
from bezoar.models.vectors import unit_vectors
from bezoar.results import EncoderEvaluation
from bezoar.runtime import Runtime
from bezoar.shapes import UInt8

FitHead = Callable[[Tensor, Tensor, int], nn.Module]


@runtime_checkable
class EncoderTrigger(Protocol):
    """What an attack on an encoder shows at test time."""

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the images with the trigger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderTask:
    """A downstream task to judge encoders by.

    Attributes:
        name: What it is called.
        train: Labelled images that the head learns from.
        test: Labelled images that it is judged by, of the same classes.
        target_class: The class that an attack leads to.
    """

    name: str
    train: ImageData
    test: ImageData
    target_class: int

    def __post_init__(self) -> None:
        names = self.train.class_names
        if not names or names != self.test.class_names:
            raise InputError(
                "expected labelled training and test images of the same classes, got "
                f"{len(names)} and {len(self.test.class_names)} classes; give the same "
                "class names to both"
            )
        if not 0 <= self.target_class < len(names):
            raise InputError(
                f"expected a target_class from 0 to {len(names) - 1}, got "
                f"{self.target_class}; choose one of the {len(names)} classes"
            )
        if not (self.test.labels != self.target_class).any():
            raise InputError(
                "expected test images of other classes than the target, got none; "
                "give a test set of all classes"
            )


def evaluate_encoder(
    encoder: nn.Module,
    *,
    task: EncoderTask,
    attack: EncoderTrigger | None = None,
    head: FitHead = ridge_head,
    name: str = "encoder",
    runtime: Runtime = Runtime(),
) -> EncoderEvaluation:
    """Fit a head on an encoder's vectors and measure both.

    Args:
        encoder: A ``SimCLR``, or any module from images in [0, 1] to vectors; it is
            left as it was.
        task: The downstream task.
        attack: The attack whose trigger is shown.
        head: Fits a classifier on vectors, labels and the number of classes; such as
            ``ridge_head``, ``NeighborHead`` or ``train_head``.
        name: What to call the encoder.
        runtime: Where and how to run.

    Returns:
        The rates; ``floor`` and ``knowledge_recovery`` need other encoders beside it.
    """
    train, test = task.train, task.test
    fitted = head(
        unit_vectors(encoder, train.images, runtime=runtime),
        train.labels,
        len(train.class_names),
    )

    def classes(images: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = fitted(unit_vectors(encoder, images, runtime=runtime))
        return found.argmax(1)

    clean = classes(test.images)
    found = EncoderEvaluation(
        encoder=name,
        task=task.name,
        clean_accuracy=_share(clean == test.labels),
        num_clean=len(test),
    )
    if attack is None:
        return found
    hits = classes(attack.apply(test.images)) == task.target_class
    others = test.labels != task.target_class
    return replace(
        found,
        target_class=task.target_class,
        attack_success_rate=_share(hits[others]),
        attack_success_rate_all=_share(hits),
        num_triggered=int(others.sum()),
        false_target_rate=_share(clean[others] == task.target_class),
    )


def evaluate_encoders(
    encoders: Mapping[str, nn.Module],
    *,
    tasks: Sequence[EncoderTask],
    attack: EncoderTrigger | None = None,
    head: FitHead = ridge_head,
    clean: str | None = "clean",
    teacher: str | None = "teacher",
    untrained: str | None = "untrained",
    runtime: Runtime = Runtime(),
) -> list[EncoderEvaluation]:
    """Measure several encoders on the same tasks, and each beside the others.

    Args:
        encoders: By name.
        tasks: The downstream tasks.
        attack: The attack whose trigger is shown.
        head: Fits a classifier, as for ``evaluate_encoder``.
        clean: Name of the encoder whose success is the floor, if it is among them.
        teacher: Name of the one whose accuracy is a recovery of 1.
        untrained: Name of the one whose accuracy is a recovery of 0.
        runtime: Where and how to run.

    Returns:
        One evaluation for each task and encoder, tasks outside.
    """
    found = []
    for task in tasks:
        rows = {
            name: evaluate_encoder(
                net, task=task, attack=attack, head=head, name=name, runtime=runtime
            )
            for name, net in encoders.items()
        }
        floor = rows[clean].attack_success_rate if clean in rows else None
        best = rows[teacher].clean_accuracy if teacher in rows else None
        least = rows[untrained].clean_accuracy if untrained in rows else None
        for row in rows.values():
            share = knowledge_recovery(row.clean_accuracy, teacher=best, least=least)
            found.append(replace(row, floor=floor, knowledge_recovery=share))
    return found


def knowledge_recovery(
    accuracy: float, *, teacher: float | None, least: float | None
) -> float | None:
    """Return how much of a teacher's gain over an untrained encoder there is.

    Args:
        accuracy: Of the encoder asked about.
        teacher: Of the teacher.
        least: Of an untrained encoder.

    Returns:
        ``(accuracy - least) / (teacher - least)``; None where one is unknown or the
        teacher is no better than the untrained one.

    Example:
        >>> knowledge_recovery(0.6, teacher=0.7, least=0.3)
        0.75
    """
    if teacher is None or least is None or teacher <= least:
        return None
    return round((accuracy - least) / (teacher - least), 12)


def paired_difference(
    after: Sequence[float], before: Sequence[float]
) -> tuple[float, float]:
    """Return the mean difference of measurements made from the same seeds.

    Args:
        after: One number per seed.
        before: The other numbers, in the same order.

    Returns:
        The mean of the differences and its standard error, which is not a number for
        one seed.

    Raises:
        InputError: If there are none, or not as many of each.

    Example:
        >>> paired_difference([0.5, 0.75], [0.25, 0.5])
        (0.25, 0.0)
    """
    if not after or len(after) != len(before):
        raise InputError(
            f"expected as many measurements after as before, got {len(after)} and "
            f"{len(before)}; measure both from the same seeds"
        )
    differences = torch.tensor(after).double() - torch.tensor(before).double()
    if len(after) == 1:
        return differences.item(), float("nan")
    error = differences.std() / len(after) ** 0.5
    return differences.mean().item(), error.item()


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
