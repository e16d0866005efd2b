"""Training of an encoder on images without labels, beside a teacher or without one.

The loop that MIMIC (2024, https://arxiv.org/abs/2406.03508) and the methods it is
compared with share: two views of each image, a contrastive term between them, and on
the first view what the teacher's features and attention maps ask for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.errors import DivergedError
from bezoar.models import SimCLR, fingerprint
from bezoar.models.maps import tapped_maps
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train.attention_losses import (
    attention_loss,
    attention_map,
    clone_loss,
)
from bezoar.train.encoder_losses import nt_xent
from bezoar.train.encoder_protocol import Distilled, EncoderProtocol, step_size
from bezoar.train.epoch import drawing_from
from bezoar.train.teacher import Teacher
from bezoar.train.vae_checkpoint import VAECheckpoint
from bezoar.train.views import Views

_FEWEST = (
    32  # images of a step: below, batch norms and the contrastive term mean little
)
_PROBES = 256  # images whose cosine to the teacher is followed
_GAIN = 1e-3  # in cosine, or as a share of the attention loss
_PARTS = ("loss", "contrastive", "clone", "attention")


def distil(
    student: SimCLR,
    data: ImageData,
    *,
    protocol: EncoderProtocol,
    teacher: nn.Module | None = None,
    weights: Mapping[str, float] | None = None,
    held_out: ImageData | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Distilled:
    """Train a student; the work is repeatable from its seed on one machine.

    Args:
        student: Changed in place; in the end in eval mode on the CPU.
        data: Images; labels are not looked at.
        protocol: How to train.
        teacher: Maps images in [0, 1] to vectors, as the student's backbone does; it
            is left as it was. None trains on the contrastive term alone.
        weights: Of the attention terms, by the name of a module that both have.
        held_out: Images to follow the student on.
        seed: Seeds the order and the views.
        runtime: Where and how to run; with ``work_dir`` a killed training goes on.

    Returns:
        The curves.

    Raises:
        DivergedError: If the loss is not finite.
    """
    start = time.perf_counter()
    size = step_size(len(data), protocol.batch_size)
    watched = data if held_out is None else held_out
    probes = watched.images[:_PROBES]
    guide = None
    if teacher is not None:
        guide = Teacher(
            teacher,
            layers=tuple(weights or {}),
            power=protocol.attention_power,
            images=probes,
            runtime=runtime,
        )
    checkpoint = VAECheckpoint.at(
        runtime.work_dir,
        stage="distil",
        settings={
            **asdict(protocol),
            "seed": seed,
            "weights": dict(weights or {}),
            "student": fingerprint(student),
            "teacher": None if teacher is None else fingerprint(teacher),
        },
        data=data,
    )
    student.to(runtime.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(
        student=student,
        images=data.images.to(runtime.device),
        guide=guide,
        weights=dict(weights or {}),
        protocol=protocol,
        batch_size=size,
        runtime=runtime,
    )
    optimizer = _optimizer(student, protocol)
    history: list[Mapping[str, float]] = list(checkpoint.load(student, optimizer))
    saved, cost = time.perf_counter(), 0.0
    for epoch in range(len(history), protocol.epochs):
        if _is_stalled(history, protocol.patience):
            break
        row = run.epoch(optimizer, epoch=epoch, seed=seed)
        if not math.isfinite(row["loss"]):
            raise DivergedError(
                f"expected a finite loss, got {row} in epoch {epoch + 1}; lower lr "
                f"({protocol.lr}), or run in float32"
            )
        history.append(row)
        begin = time.perf_counter()
        if begin - saved >= 10 * cost:  # at most a tenth of the time goes into files
            checkpoint.save(student, optimizer, history=tuple(history))
            saved = time.perf_counter()
            cost = saved - begin
        stalled = _is_stalled(history, protocol.patience)
        total = protocol.epochs
        runtime.progress(
            Progress(
                stage="distil",
                done=total if stalled else epoch + 1,
                total=total,
                metrics={k: v for k, v in row.items() if v == v},
            )
        )
    student.eval().cpu()
    return Distilled(
        history=tuple(history),
        batch_size=size,
        seconds=time.perf_counter() - start,
        stopped=len(history) < protocol.epochs,
    )


def lesson(
    student: SimCLR,
    views: tuple[Tensor, Tensor],
    *,
    guide: Teacher | None,
    weights: Mapping[str, float],
    protocol: EncoderProtocol,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return the loss of one step, from one pass of the student for each view.

    Args:
        student: In the mode that is wanted.
        views: Two views of each image, in [0, 1].
        guide: The teacher, if there is one.
        weights: Of the attention terms, by layer of the backbone.
        protocol: The other weights.
        dtype: Type that the student computes in; losses are float32 at least.

    Returns:
        The loss, and by themselves the loss, the contrastive and the clone term
        without their weights, and the weighted sum of the attention terms.
    """
    first, second = views
    half = dtype.itemsize == 2
    zero = torch.zeros((), device=first.device)
    contrastive = clone = attention = zero
    with (
        torch.autocast(first.device.type, dtype, enabled=half),
        tapped_maps(student.backbone, list(weights)) as maps,
    ):
        features, projections = student(first)
        seen = maps(len(first))
    if protocol.contrastive_weight > 0:
        with torch.autocast(first.device.type, dtype, enabled=half):
            others = student(second).projections
        contrastive = nt_xent(projections, others, temperature=protocol.temperature)
    if guide is not None:
        targets, looks = guide(first)
        clone = clone_loss(features, targets)
        for layer, weight, own, look in zip(
            weights, weights.values(), seen, looks, strict=True
        ):
            apart = attention_loss(
                attention_map(own, power=protocol.attention_power),
                look,
                reduction=protocol.attention_reduction,
            )
            assert layer in guide.layers
            attention = attention + weight * apart
    loss = (
        protocol.contrastive_weight * contrastive
        + protocol.clone_weight * clone
        + attention
    )
    return loss, torch.stack([loss, contrastive, clone, attention]).detach()


def _optimizer(student: nn.Module, protocol: EncoderProtocol) -> torch.optim.Optimizer:
    fixed = {"lr": protocol.lr, "weight_decay": protocol.weight_decay, "fused": True}
    parameters = [p for p in student.parameters() if p.requires_grad]
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **fixed)  # type: ignore[arg-type]
    return torch.optim.Adam(parameters, **fixed)  # type: ignore[arg-type]


def _is_stalled(history: list[Mapping[str, float]], patience: int | None) -> bool:
    if patience is None or len(history) <= patience:
        return False
    early, late = history[:-patience], history[-patience:]
    cosines = [max(row["cosine"] for row in rows) for rows in (early, late)]
    apart = [min(row["watched_attention"] for row in rows) for rows in (early, late)]
    closer = cosines[1] > cosines[0] + _GAIN
    keener = apart[1] < apart[0] * (1 - _GAIN)
    return not (closer or keener)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    student: SimCLR
    images: Tensor
    guide: Teacher | None
    weights: Mapping[str, float]
    protocol: EncoderProtocol
    batch_size: int
    runtime: Runtime

    def epoch(
        self, optimizer: torch.optim.Optimizer, *, epoch: int, seed: int
    ) -> dict[str, float]:
        self.student.train()
        for group in optimizer.param_groups:
            group["lr"] = self.protocol.rate(epoch)
        device, draw = self.images.device, Views()
        stream = generator(seed, "distil", epoch)
        order = torch.randperm(len(self.images), generator=stream).to(device)
        steps = len(order) // self.batch_size
        sums = torch.zeros(len(_PARTS), device=device)
        with drawing_from(stream, device):
            for picked in order[: steps * self.batch_size].split(self.batch_size):
                # Both views of all images in one call: fewer, larger kernels.
                both = draw(self.images[picked].repeat(2, 1, 1, 1), stream)
                both = both.contiguous(memory_format=torch.channels_last)
                first, second = both.split(self.batch_size)
                loss, parts = lesson(
                    self.student,
                    (first, second),
                    guide=self.guide,
                    weights=self.weights,
                    protocol=self.protocol,
                    dtype=self.runtime.compute_dtype(),
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                sums += parts
        row = dict(zip(_PARTS, (sums / steps).tolist(), strict=True))
        if self.guide is not None:
            cosine, apart = self.guide.follow(self.student.backbone)
            row["cosine"] = cosine
            pairs = zip(self.weights.values(), apart, strict=True)
            row["watched_attention"] = sum(weight * value for weight, value in pairs)
        return {"epoch": epoch + 1.0, **row}
