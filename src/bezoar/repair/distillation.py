"""Plain distillation of an encoder: MIMIC without a choice between layers.

Han et al., On the Effectiveness of Distillation in Mitigating Backdoors in Pre-trained
Encoder, 2024, https://arxiv.org/abs/2403.03846. Attention-only distillation is that of
Neural Attention Distillation (Li et al., 2021, https://arxiv.org/abs/2101.05930),
without labels.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import backbone_of
from bezoar.repair.students import (
    COPIED,
    Course,
    Initialization,
    check_settings,
    layers_of,
    prepare,
    split,
)
from bezoar.results import Repair
from bezoar.runtime import Runtime
from bezoar.train import EncoderProtocol, distil, step_size


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Trains an empty copy of an encoder to give the same features and attention.

    Every layer weighs the same. Needs no labels.

    Attributes:
        epochs: Passes over the clean images.
        batch_size: Images per step; of fewer images all; at least 32.
        lr: Step size of Adam.
        schedule: "constant", or "cosine" to 0.
        weight_decay: Weight decay on all parameters.
        attention_weight: Weight of each layer's attention term.
        clone_weight: Weight of the cosine to the teacher's features.
        contrastive_weight: Weight of the contrastive term between two views.
        taps: Names of the modules to follow; by default the four stages.
        initialization: "fresh", or "teacher" to begin with a copy of the encoder,
            which may keep its backdoor.
        holdout_rate: Share of the images kept out, to follow the student on.
    """

    epochs: int = 500
    batch_size: int = 128
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 1e-6
    attention_weight: float = 1000.0
    clone_weight: float = 1.0
    contrastive_weight: float = 0.0
    taps: tuple[str, ...] | None = None
    initialization: Initialization = "fresh"
    holdout_rate: float = 0.0

    def __post_init__(self) -> None:
        weights = ("attention_weight", "clone_weight", "contrastive_weight")
        told = vars(self)
        check_settings(
            at_least_one={"epochs": self.epochs, "batch_size": self.batch_size},
            above_zero={"lr": self.lr},
            not_negative={n: told[n] for n in (*weights, "weight_decay")},
            holdout_rate=self.holdout_rate,
        )
        if not any(told[name] for name in weights):
            raise InputError(
                "expected one of the three weights above 0, got none; raise one"
            )

    @classmethod
    def attention_only(cls) -> Distillation:
        """Return settings that hold the student to attention maps alone.

        Returns:
            No clone term.
        """
        return cls(clone_weight=0.0)

    @classmethod
    def contrastive_only(cls) -> Distillation:
        """Return what no teacher at all gives: the student learns by itself.

        Returns:
            The contrastive term alone, with MIMIC's step size.
        """
        return cls(
            attention_weight=0.0, clone_weight=0.0, contrastive_weight=1.0, lr=1e-2
        )

    def repair(
        self,
        encoder: nn.Module,
        *,
        data: ImageData,
        student: nn.Module | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Train a student in place of an encoder.

        Args:
            encoder: Maps images in [0, 1] to vectors, or a ``SimCLR``; it is left as
                it was.
            data: Clean images; labels are not looked at.
            student: A network of the encoder's kind to start from; it is left as it
                was.
            seed: Seeds the student, what is kept out and the views.
            runtime: Where and how to run; with ``work_dir`` a killed run goes on.

        Returns:
            The student, in eval mode on the CPU.
        """
        start = time.perf_counter()
        kept, held_out = split(data, rate=self.holdout_rate, seed=seed)
        step_size(len(kept), self.batch_size)
        pupil = prepare(
            encoder,
            initialization=self.initialization,
            given=student,
            data=kept,
            seed=seed,
        )
        layers = layers_of(encoder, self.taps) if self.attention_weight else ()
        done = distil(
            pupil.trained,
            kept,
            protocol=EncoderProtocol(
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                schedule=self.schedule,
                weight_decay=self.weight_decay,
                contrastive_weight=self.contrastive_weight,
                clone_weight=self.clone_weight,
            ),
            teacher=backbone_of(encoder),
            weights=dict.fromkeys(layers, self.attention_weight),
            held_out=held_out,
            seed=seed,
            runtime=runtime,
        )
        passes = 2 if self.contrastive_weight > 0 else 1
        course = Course(
            method="distillation",
            settings=asdict(self),
            student=pupil,
            done=done,
            data=kept,
            held_out=held_out,
            start=start,
            forwards=(3 * passes + 1) * len(done.history),
            batch_size=self.batch_size,
        )
        return course.repair(
            summary=(
                f"A copy of the encoder learnt from {len(kept):,} clean images to give "
                "what the encoder gives."
            ),
            seed=seed,
            health=(COPIED,) if self.initialization == "teacher" else (),
        )
