"""Overfitting of the suspicious pairs, to see which give in first: stage 1 of UBT.

The papers overfit the weak pairs and look at them again. The squared loss is that of
the group's released code (its ``--unlearn`` with the default target); lengths, the
mean over several looks and the stop are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.errors import DivergedError
from bezoar.metrics import computing, lent
from bezoar.models import DualEncoder, embed_captions, embed_images
from bezoar.repair.ubt_texts import Pairs, passes
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64
from bezoar.train import clip_loss, decay_groups

SATURATED = 0.98
"""Mean similarity from which on all pairs look alike."""


@dataclass(frozen=True, kw_only=True)
class Overfitting:
    """How the suspicious pairs are overfitted.

    Attributes:
        loss: "square" or "infonce".
        overfit_weight: Weight of the suspicious pairs.
        normal_weight: Weight of the trusted ones.
        steps: Most steps.
        lr: Step size of AdamW, constant.
        record_every: Steps between two looks.
        batch_size: Suspicious pairs, and trusted ones, per step.
        weight_decay: Weight decay; none on norms, biases and vectors.
    """

    loss: Literal["square", "infonce"]
    overfit_weight: float
    normal_weight: float
    steps: int
    lr: float
    record_every: int
    batch_size: int
    weight_decay: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Overfitted:
    """What overfitting showed.

    Attributes:
        similarity: Mean over the looks of each suspicious pair's cosine (r).
        curve: Mean over the pairs, look by look.
        steps: Steps that were done.
    """

    similarity: Float[Tensor, " s"]
    curve: tuple[float, ...]
    steps: int


def square_loss(similarity: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return the loss that pulls pairs together.

    Unlike InfoNCE it does not take poisoned pairs, which share nearly one caption, for
    negatives of each other.

    Args:
        similarity: Cosines (s).

    Returns:
        Mean of (1 - s)^2.

    Example:
        >>> square_loss(torch.tensor([0.5])).item()
        0.25
    """
    return (1 - similarity).square().mean()


def overfit(
    model: DualEncoder,
    *,
    data: PairData,
    suspicious: Int64[Tensor, " s"],
    normal: Int64[Tensor, " m"],
    settings: Overfitting,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Overfitted:
    """Overfit a copy of the suspect model on the suspicious pairs.

    Args:
        model: The suspect model; it is left as it was.
        data: All pairs.
        suspicious: Places of the suspicious ones.
        normal: Places of trusted ones.
        settings: Losses and lengths.
        seed: Seeds the order.
        runtime: Where and how to run.

    Returns:
        How similar each suspicious pair was on the way.

    Raises:
        DivergedError: If the similarities are no numbers.
    """
    network = lent(model, runtime)  # batch norms stay in eval mode
    trained = [p for p in network.parameters() if p is not network.log_scale]
    for parameter in trained:
        parameter.requires_grad_(True)
    groups = decay_groups(trained, weight_decay=settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    weak = Pairs(network, data, suspicious, cached=False)
    kept = Pairs(network, data, normal, cached=False)
    weak_rows = passes(len(weak), settings.batch_size, generator(seed, "overfit"))
    kept_rows = passes(
        len(kept), settings.batch_size, generator(seed, "overfit-normal")
    )
    looks: list[Tensor] = []
    step = 0
    while step < settings.steps:
        with computing(runtime):
            loss = _loss(
                network, weak, next(weak_rows), kept, next(kept_rows), settings
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % settings.record_every == 0 or step == settings.steps:
            looks.append(_look(network, data, suspicious, runtime))
            mean = looks[-1].mean().item()
            if not math.isfinite(mean):
                raise DivergedError(
                    f"expected finite similarities, got {mean} after {step} steps of "
                    f"overfitting; lower overfit_lr ({settings.lr})"
                )
            _report(step, settings.steps, mean, runtime)
            if mean > SATURATED:
                break
    _report(settings.steps, settings.steps, looks[-1].mean().item(), runtime)
    return Overfitted(
        similarity=torch.stack(looks).mean(0),
        curve=tuple(look.mean().item() for look in looks),
        steps=step,
    )


def _loss(
    network: DualEncoder,
    weak: Pairs,
    weak_rows: Int64[Tensor, " b"],
    kept: Pairs,
    kept_rows: Int64[Tensor, " c"],
    settings: Overfitting,
) -> Tensor:
    seen = weak.seen(weak_rows)
    texts = weak.texts.vectors(weak_rows)[:, 0]
    scale = network.log_scale.detach()
    if settings.loss == "square":
        pull = square_loss((seen * texts).sum(1))
    else:
        pull = clip_loss(seen, texts, log_scale=scale)
    loss = settings.overfit_weight * pull
    if settings.normal_weight > 0:
        own = kept.texts.vectors(kept_rows)[:, 0]
        hold = clip_loss(kept.seen(kept_rows), own, log_scale=scale)
        loss = loss + settings.normal_weight * hold
    return loss


def _look(
    network: DualEncoder, data: PairData, rows: Int64[Tensor, " s"], runtime: Runtime
) -> Float[Tensor, " s"]:
    captions = [data.captions[row] for row in rows.tolist()]
    with computing(runtime):
        seen = embed_images(network, data.images[rows], batch_size=runtime.batch_size)
        return (seen * embed_captions(network, captions)).sum(1)


def _report(done: int, total: int, mean: float, runtime: Runtime) -> None:
    runtime.progress(
        Progress(stage="overfit", done=done, total=total, metrics={"similarity": mean})
    )
