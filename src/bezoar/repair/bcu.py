"""Cleansing with unlabelled data: part of the weights anew, then distillation.

Pang et al., Backdoor Cleansing with Unlabeled Data (BCU), 2023,
https://arxiv.org/abs/2211.12044. Between fine-tuning, which keeps all weights, and
MIMIC, which keeps none.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import backbone_of
from bezoar.models.empty import empty_copy
from bezoar.models.wrap import named_module
from bezoar.repair.students import Course, check_settings, layers_of, prepare
from bezoar.results import Repair
from bezoar.runtime import Runtime, generator
from bezoar.train import EncoderProtocol, distil, step_size

_SHORTCUT = "downsample"


@dataclass(frozen=True, kw_only=True)
class BCU:
    """Draws a part of an encoder's weights anew and teaches it the features again.

    Attributes:
        rates: Share of the weights drawn anew in each of the stages, shallow first.
        epochs: Passes over the clean images.
        batch_size: Images per step; of fewer images all; at least 32.
        lr: Highest step size of SGD with momentum 0.9; a cosine brings it to 0.
        weight_decay: Weight decay on all parameters.
        taps: Names of the stages; by default the four that an encoder has.
    """

    rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-2
    weight_decay: float = 5e-4
    taps: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.rates or not all(0 <= rate <= 1 for rate in self.rates):
            raise InputError(
                f"expected rates from 0 to 1, got {self.rates}; correct them"
            )
        check_settings(
            at_least_one={"epochs": self.epochs, "batch_size": self.batch_size},
            above_zero={"lr": self.lr},
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
        """Draw weights anew in a copy of an encoder, and teach it.

        Args:
            encoder: Maps images in [0, 1] to vectors, or a ``SimCLR``; it is left as
                it was.
            data: Clean images; labels are not looked at.
            seed: Seeds which weights, their values and the views.
            runtime: Where and how to run; with ``work_dir`` a killed run goes on.

        Returns:
            The copy, in eval mode on the CPU.

        Raises:
            InputError: If there are more or fewer stages than rates.
        """
        start = time.perf_counter()
        step_size(len(data), self.batch_size)
        stages = layers_of(encoder, self.taps)
        if len(stages) != len(self.rates):
            raise InputError(
                f"expected one rate for each of {len(stages)} stages, got "
                f"{len(self.rates)}; give as many rates as taps"
            )
        pupil = prepare(
            encoder, initialization="teacher", given=None, data=data, seed=seed
        )
        drawn = generator(seed, "student").initial_seed()
        fresh = backbone_of(empty_copy(encoder, seed=drawn).model)
        stream = generator(seed, "bcu")
        for stage, rate in zip(stages, self.rates, strict=True):
            own = named_module(backbone_of(pupil.model), stage)
            redraw(own, named_module(fresh, stage), rate=rate, stream=stream)
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
                contrastive_weight=0.0,
                clone_weight=1.0,
            ),
            teacher=backbone_of(encoder),
            seed=seed,
            runtime=runtime,
        )
        course = Course(
            method="bcu",
            settings=asdict(self),
            student=replace(pupil, how="redrawn in part"),
            done=done,
            data=data,
            held_out=None,
            start=start,
            forwards=4 * len(done.history),
            batch_size=self.batch_size,
        )
        return course.repair(
            summary=(
                "A part of the encoder's weights was drawn anew and learnt from "
                f"{len(data):,} clean images."
            ),
            seed=seed,
        )


@torch.no_grad()
def redraw(
    own: nn.Module, fresh: nn.Module, *, rate: float, stream: torch.Generator
) -> None:
    """Give a share of a stage's weights the values that an untrained stage has.

    Weights of convolutions and linear layers are drawn anew, one by one; those of
    shortcuts and norms stay.

    Args:
        own: The stage; changed in place.
        fresh: An untrained stage of the same kind.
        rate: Share of the weights.
        stream: Which of them.
    """
    others: dict[str, nn.Module] = dict(fresh.named_modules())
    for name, module in own.named_modules():
        is_drawn = isinstance(module, _ConvNd | nn.Linear)
        if is_drawn and _SHORTCUT not in name.split("."):
            weight, new = module.weight, others[name].weight
            assert isinstance(weight, Tensor)
            assert isinstance(new, Tensor)
            marks = torch.rand(weight.shape, generator=stream) < rate
            weight.copy_(torch.where(marks, new, weight))
