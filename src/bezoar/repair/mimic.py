"""MIMIC: a clean student distilled from an encoder that nobody vouches for.

Han et al., Mutual Information Guided Backdoor Mitigation for Pre-trained Encoders,
2024, https://arxiv.org/abs/2406.03508. The student starts empty: it gets the
teacher's knowledge only through what the teacher says about clean images.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import backbone_of
from bezoar.repair.information import (
    Estimation,
    Information,
    layer_tables,
    layer_weights,
)
from bezoar.repair.remembered import remembered_information
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

Source = Literal["teacher", "student", "uniform"]


@dataclass(frozen=True, kw_only=True)
class MIMIC:
    """Trains an empty copy of an encoder on what it says about clean images.

    Its attention maps are followed in each layer as far as that layer tells the
    features, its features directly. Needs no labels. It repairs whatever it gets, and
    does not tell whether there was a backdoor.

    Attributes:
        epochs: Passes over the clean images.
        batch_size: Images per step; of fewer images all; at least 32.
        lr: Step size of Adam.
        schedule: "constant" as published, or "cosine", which brings lr to 0: better
            where the training is short.
        weight_decay: Weight decay on all parameters.
        clone_weight: Weight of the cosine to the teacher's features.
        contrastive_weight: Weight of the contrastive term between two views.
        temperature: Of the contrastive term (tau).
        attention_weight: Weight that each layer's attention term has at least.
        information_weight: Weight that the layers share by their information.
        attention_power: Of the magnitudes in attention maps (p).
        attention_reduction: "mean" over the places of a map (the official code), or
            "sum", which weighs large and small maps alike.
        information_source: Whose information shares out the weights: that of the
            "teacher" (the paper), the untrained "student" (the official code), or
            nobody's ("uniform": equal shares).
        information_epochs: Passes to estimate the information.
        information_lr: Step size of the critics.
        information_weight_decay: Weight decay of the critics.
        information_hidden: Values between the critics' layers.
        information_pool: Largest side of a map that a critic sees; 4 makes it cheap
            enough for a CPU.
        information_clip: Bounds a critic's values in the estimate (SMILE; 5.0).
        taps: Names of the modules to follow; by default the four stages.
        initialization: "fresh"; "teacher" is the negative control, for it keeps the
            backdoor.
        holdout_rate: Share of the images kept out, to estimate on and to follow the
            student on.
        patience: Stop after so many epochs without gain on the images kept out.
    """

    epochs: int = 1000
    batch_size: int = 128
    lr: float = 1e-2
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 1e-6
    clone_weight: float = 1.0
    contrastive_weight: float = 1.0
    temperature: float = 0.5
    attention_weight: float = 1000.0
    information_weight: float = 10000.0
    attention_power: int = 2
    attention_reduction: Literal["mean", "sum"] = "mean"
    information_source: Source = "teacher"
    information_epochs: int = 200
    information_lr: float = 1e-3
    information_weight_decay: float = 1e-5
    information_hidden: int = 512
    information_pool: int | None = None
    information_clip: float | None = None
    taps: tuple[str, ...] | None = None
    initialization: Initialization = "fresh"
    holdout_rate: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        names = (
            "epochs batch_size attention_power information_epochs information_hidden "
            "information_pool patience"
        )
        weights = (
            "weight_decay clone_weight contrastive_weight attention_weight "
            "information_weight information_weight_decay"
        )
        told = vars(self)
        check_settings(
            at_least_one={name: told[name] for name in names.split()},
            above_zero={n: told[n] for n in ("lr", "temperature", "information_lr")},
            not_negative={name: told[name] for name in weights.split()},
            holdout_rate=self.holdout_rate,
        )
        if self.patience is not None and self.holdout_rate == 0:
            raise InputError(
                "expected a holdout_rate above 0 beside patience, got 0; hold out "
                "images to see the gain on, such as 0.1"
            )

    @classmethod
    def release(cls) -> MIMIC:
        """Return what the official code does.

        Returns:
            The information is that of the untrained student.
        """
        return cls(information_source="student")

    @classmethod
    def fast(cls) -> MIMIC:
        """Return a shorter training that ends when nothing is gained.

        Returns:
            At most 250 epochs; a tenth of the images is kept out.
        """
        return cls(epochs=250, holdout_rate=0.1, patience=30)

    @classmethod
    def tiny(cls) -> MIMIC:
        """Return settings for small networks and images on a CPU.

        Returns:
            40 epochs in steps of 32 along a cosine, small critics on pooled maps; a
            quarter of the attention weights, for maps have a quarter of the places,
            and thirty times the weight on the features. Half of the published
            step size: at the whole of it a part of the backdoor came along.
        """
        return cls(
            epochs=40,
            batch_size=32,
            lr=5e-3,
            schedule="cosine",
            clone_weight=30.0,
            attention_weight=250.0,
            information_weight=2500.0,
            information_epochs=30,
            information_hidden=128,
            information_pool=4,
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
                it was (the teacher).
            data: Clean images, best such as the encoder was trained on; labels are not
                looked at.
            student: A network of the encoder's kind to start from instead of an empty
                one; it is left as it was.
            seed: Seeds the student, what is kept out, the critics and the views.
            runtime: Where and how to run; with ``work_dir`` a killed run goes on.

        Returns:
            The student, in eval mode on the CPU, with the layers' weights and the
            curves.
        """
        start = time.perf_counter()
        kept, held_out = split(data, rate=self.holdout_rate, seed=seed)
        step_size(len(kept), self.batch_size)  # tells too few images at once
        pupil = prepare(
            encoder,
            initialization=self.initialization,
            given=student,
            data=kept,
            seed=seed,
        )
        layers = layers_of(encoder, self.taps) if self._attends else ()
        information = None
        if layers and self.information_source != "uniform" and self.information_weight:
            of = encoder if self.information_source == "teacher" else pupil.model
            information = remembered_information(
                backbone_of(of),
                kept,
                layers=layers,
                settings=self._estimation(),
                held_out=held_out,
                seed=seed,
                runtime=runtime,
            )
        values = dict.fromkeys(layers, 0.0)
        if information is not None:
            values = dict(information.values)
        weights = layer_weights(
            values, base=self.attention_weight, total=self.information_weight
        )
        seconds = {"information": time.perf_counter() - start}
        done = distil(
            pupil.trained,
            kept,
            protocol=self._protocol(),
            teacher=backbone_of(encoder),
            weights=weights,
            held_out=held_out,
            seed=seed,
            runtime=runtime,
        )
        course = Course(
            method="mimic",
            settings=asdict(self),
            student=pupil,
            done=done,
            data=kept,
            held_out=held_out,
            start=start,
            forwards=self._forwards(len(done.history)),
            batch_size=self.batch_size,
        )
        return course.repair(
            summary=(
                f"An empty copy of the encoder learnt from {len(kept):,} clean images "
                "what the encoder says about them."
            ),
            seed=seed,
            health=self._health(information),
            tables=layer_tables(weights, information),
            seconds=seconds,
        )

    @property
    def _attends(self) -> bool:
        return self.attention_weight + self.information_weight > 0

    def _protocol(self) -> EncoderProtocol:
        return EncoderProtocol(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            contrastive_weight=self.contrastive_weight,
            temperature=self.temperature,
            clone_weight=self.clone_weight,
            attention_power=self.attention_power,
            attention_reduction=self.attention_reduction,
            patience=self.patience,
        )

    def _forwards(self, epochs: int) -> float:
        # A backward pass to weights and inputs counts as two; the teacher as one.
        passes = 2 if self.contrastive_weight > 0 else 1
        return (3 * passes + 1) * epochs + 1

    def _health(self, information: Information | None) -> tuple[str, ...]:
        notes = []
        if self.initialization == "teacher":
            notes.append(COPIED)
        if information is not None and not any(information.values.values()):
            notes.append(
                "no layer tells the features on these images: equal weights were taken"
            )
        return tuple(notes)

    def _estimation(self) -> Estimation:
        return Estimation(
            epochs=self.information_epochs,
            lr=self.information_lr,
            weight_decay=self.information_weight_decay,
            hidden=self.information_hidden,
            pool=self.information_pool,
            clip=self.information_clip,
            batch_size=self.batch_size,
        )
