"""Fine-tuning of an encoder on clean images: the weakest of repairs.

A contrastive loss takes the place of the labels that fine-tuning of classifiers needs
(Chen et al., SimCLR, 2020, https://arxiv.org/abs/2002.05709); the optimiser's settings
are those that BackdoorBench (2022, https://arxiv.org/abs/2206.12654) uses.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from torch import nn

from bezoar.data import ImageData
from bezoar.models import backbone_of
from bezoar.repair.students import COPIED, Course, check_settings, prepare
from bezoar.results import Repair
from bezoar.runtime import Runtime
from bezoar.train import EncoderProtocol, distil, step_size


@dataclass(frozen=True, kw_only=True)
class EncoderFineTuning:
    """Goes on training an encoder on clean images with a contrastive loss.

    Weights that clean images do not use stay as they are, and a backdoor with them.

    Attributes:
        epochs: Passes over the clean images.
        batch_size: Images per step; of fewer images all; at least 32.
        lr: Highest step size of SGD with momentum 0.9; a cosine brings it to 0.
        weight_decay: Weight decay on all parameters.
        temperature: Of the contrastive term.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 1e-2
    weight_decay: float = 5e-4
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_settings(
            at_least_one={"epochs": self.epochs, "batch_size": self.batch_size},
            above_zero={"lr": self.lr, "temperature": self.temperature},
            not_negative={"weight_decay": self.weight_decay},
        )

    def repair(
        self,
        encoder: nn.Module,
        *,
        data: ImageData,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Train a copy of an encoder further.

        Args:
            encoder: Maps images in [0, 1] to vectors, or a ``SimCLR``; it is left as
                it was.
            data: Clean images; labels are not looked at.
            seed: Seeds the views, and the projector where there is none.
            runtime: Where and how to run; with ``work_dir`` a killed run goes on.

        Returns:
            The copy, in eval mode on the CPU.
        """
        start = time.perf_counter()
        step_size(len(data), self.batch_size)
        pupil = prepare(
            encoder, initialization="teacher", given=None, data=data, seed=seed
        )
        done = distil(
            pupil.trained,
            data,
            protocol=EncoderProtocol(
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                optimizer="sgd",
                schedule="cosine",
                temperature=self.temperature,
            ),
            teacher=backbone_of(encoder),  # to follow, and nothing more
            seed=seed,
            runtime=runtime,
        )
        course = Course(
            method="encoder-fine-tuning",
            settings=asdict(self),
            student=pupil,
            done=done,
            data=data,
            held_out=None,
            start=start,
            forwards=6 * len(done.history),
            batch_size=self.batch_size,
        )
        return course.repair(
            summary=f"The encoder was trained further on {len(data):,} clean images.",
            seed=seed,
            health=(COPIED,),
        )
