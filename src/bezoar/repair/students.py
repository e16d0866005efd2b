"""What the repairs of encoders share: the student, what is held out, the result."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import SimCLR, backbone_of, projector, stage_names
from bezoar.models.empty import empty_copy
from bezoar.models.wrap import named_module, unwrapped
from bezoar.results import Provenance, Repair
from bezoar.runtime import Runtime, generator
from bezoar.train import Distilled
from bezoar.train.teacher import unit_features

Initialization = Literal["fresh", "teacher"]
_WATCHED = ("cosine", "watched_attention")
_INSIDE = "backbone."  # where a SimCLR keeps the part that maps images to vectors
COPIED = "the student began as a copy of the encoder, and may keep its backdoor"
NO_VERDICT = "This does not tell whether the encoder was backdoored."


def check_settings(
    *,
    at_least_one: Mapping[str, int | None],
    above_zero: Mapping[str, float],
    not_negative: Mapping[str, float],
    holdout_rate: float = 0.0,
) -> None:
    """Check the settings of a repair.

    Args:
        at_least_one: Counts by name; None is left out.
        above_zero: Numbers by name.
        not_negative: Weights by name.
        holdout_rate: A share.

    Raises:
        InputError: If one is out of its range.
    """
    faults = [
        *(
            (n, "1 or more", v)
            for n, v in at_least_one.items()
            if v is not None and v < 1
        ),
        *((n, "a number above 0", v) for n, v in above_zero.items() if not v > 0),
        *((n, "at least 0", v) for n, v in not_negative.items() if not v >= 0),
    ]
    if not 0 <= holdout_rate < 1:
        faults.append(("holdout_rate", "0 or more and below 1", holdout_rate))
    for name, wanted, value in faults:
        raise InputError(f"expected {name} of {wanted}, got {value}; correct it")


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """A network in training.

    Attributes:
        model: What is returned in the end: of the kind that the encoder is.
        trained: The same with a projector behind it; a fresh one where the encoder
            has none, which is dropped in the end.
        how: "rebuilt", "reset" (see ``empty_copy``), "teacher" or "given".
    """

    model: nn.Module
    trained: SimCLR
    how: str


def prepare(
    encoder: nn.Module,
    *,
    initialization: Initialization,
    given: nn.Module | None,
    data: ImageData,
    seed: int,
) -> Student:
    """Return the network that is to become the repaired encoder.

    Args:
        encoder: What is repaired.
        initialization: "fresh", or "teacher" for a copy of the encoder.
        given: A network to copy instead.
        data: Images that it takes.
        seed: Seeds the first weights.

    Returns:
        The student on the CPU.

    Raises:
        InputError: If a network is given and a copy of the encoder is wanted.
    """
    drawn = generator(seed, "student").initial_seed()
    if given is not None and initialization == "teacher":
        raise InputError(
            'expected no student beside initialization "teacher", got one; leave one '
            "of them out"
        )
    if given is not None:
        model, how = copy.deepcopy(unwrapped(given)), "given"
    elif initialization == "teacher":
        model, how = copy.deepcopy(unwrapped(encoder)), "teacher"
    else:
        model, how = empty_copy(encoder, seed=drawn)
    model = model.cpu().requires_grad_(True)
    probe = data.images[:2]
    plain = Runtime(dtype=torch.float32)
    size = unit_features(backbone_of(model), probe, runtime=plain).shape[1]
    trained = model
    if not isinstance(trained, SimCLR):
        trained = SimCLR(model, projector(size, seed=drawn))
    return Student(model=model, trained=trained, how=how)


def layers_of(encoder: nn.Module, taps: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the layers to look at, as the backbone has them.

    Args:
        encoder: The encoder.
        taps: Names in the encoder, or None for its four stages.

    Returns:
        The names in the part that maps images to vectors. A name that it does not have
        is a ``ModelError``.
    """
    backbone = backbone_of(unwrapped(encoder))
    if taps is None:
        return stage_names(backbone)
    is_inside = backbone is not unwrapped(encoder)
    names = tuple(n.removeprefix(_INSIDE) if is_inside else n for n in taps)
    for name in names:
        named_module(backbone, name)
    return names


def split(
    data: ImageData, *, rate: float, seed: int
) -> tuple[ImageData, ImageData | None]:
    """Hold out a share of the images.

    Args:
        data: All images.
        rate: The share, from 0 to below 1.
        seed: Seeds which.

    Returns:
        The images to learn from, and those held out, if any.

    Raises:
        InputError: If the share is so small that no image is held out.
    """
    if rate == 0:
        return data, None
    order = torch.randperm(len(data), generator=generator(seed, "held out"))
    count = round(rate * len(data))
    if not 0 < count < len(data):
        raise InputError(
            f"expected a holdout_rate that leaves images on both sides of {len(data)}, "
            f"got {rate}; raise it, or set it to 0"
        )
    return data.take(order[count:].sort().values), data.take(order[:count])


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """All that is known of a training when it is over.

    Attributes:
        method: The method's name in the catalog.
        settings: Its fields.
        student: What was trained.
        done: How that went.
        data: What it was trained on.
        held_out: What it was followed on.
        start: When the work began, by ``time.perf_counter``.
        forwards: Forward-equivalents for an image.
        batch_size: Images per step that were wanted.
    """

    method: str
    settings: Mapping[str, Any]
    student: Student
    done: Distilled
    data: ImageData
    held_out: ImageData | None
    start: float
    forwards: float
    batch_size: int

    def repair(
        self,
        *,
        summary: str,
        seed: int,
        health: Sequence[str] = (),
        tables: Mapping[str, tuple[Mapping[str, object], ...]] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> Repair:
        """Return the result.

        Args:
            summary: What was done, in a sentence.
            seed: The seed that was given.
            health: Warnings of the method.
            tables: Tables of the method.
            seconds: What its other stages took.

        Returns:
            The repaired encoder and how it came about.
        """
        done = self.done
        notes = list(health)
        if done.batch_size < self.batch_size:
            notes.append(
                f"steps of {done.batch_size} images instead of {self.batch_size}: "
                "there are no more"
            )
        names = {"watched_attention": "attention_as_they_are"}
        if self.held_out is not None:
            names = {name: f"held_out_{name.split('_')[-1]}" for name in _WATCHED}
        first = {"epoch": 0.0, "cosine": 1.0, "watched_attention": 0.0}
        rows = [
            {names.get(name, name): value for name, value in row.items()}
            for row in (first, *done.history)
        ]
        sets = {"clean": self.data.ids}
        if self.held_out is not None:
            sets["held out"] = self.held_out.ids
        epochs = len(done.history)
        patient = f"no gain on held-out images up to epoch {epochs}"
        return Repair(
            model=self.student.model.eval(),
            status="repaired",
            summary=f"{summary} {NO_VERDICT}",
            stop_reason=patient if done.stopped else f"all {epochs} epochs were run",
            history=tuple(rows),
            image_ids=sets,
            health=tuple(notes),
            figures={k: v for k, v in rows[-1].items() if k.endswith("cosine")},
            tables=tables or {},
            seconds={**(seconds or {}), "distil": done.seconds},
            provenance=Provenance(
                method=self.method,
                settings={**self.settings, "student": self.student.how},
                seed=seed,
                seconds=time.perf_counter() - self.start,
                forwards_per_image=self.forwards,
            ),
        )
