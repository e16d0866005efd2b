"""Repair by training on clean pairs, whatever is minimised: the common frame."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bezoar.data import PairData
from bezoar.models import DualEncoder
from bezoar.repair.account import Evaluate, measured
from bezoar.results import Provenance, Repair
from bezoar.runtime import Progress, Runtime
from bezoar.train import ClipTraining, PairObjective, train_clip


def trained_on(
    model: DualEncoder,
    *,
    data: PairData,
    settings: ClipTraining,
    objective: PairObjective,
    method: str,
    own_settings: Mapping[str, object],
    forwards_per_image: float,
    start: float,
    evaluate: Evaluate | None,
    seed: int,
    runtime: Runtime,
) -> Repair:
    """Train a copy of a model on clean pairs and tell how that went.

    Args:
        model: The suspect model; it is left as it was.
        data: Clean pairs.
        settings: How to train.
        objective: What is minimised.
        method: The method's name in the catalog.
        own_settings: Its fields.
        forwards_per_image: What it spends on a pair.
        start: When it began.
        evaluate: The caller's own measure, or None.
        seed: Seeds the training.
        runtime: Where and how to run.

    Returns:
        The result, with one row of history per epoch.
    """
    rows: list[dict[str, float]] = [{"epoch": 0.0, **measured(evaluate, model)}]

    def report(progress: Progress) -> None:
        rows.append({"epoch": float(progress.done), **progress.metrics})
        runtime.progress(progress)

    watched = Runtime(
        device=runtime.device,
        dtype=runtime.dtype,
        batch_size=runtime.batch_size,
        progress=report,
    )
    begin = time.perf_counter()
    network = train_clip(
        model,
        data=data,
        settings=settings,
        objective=objective,
        seed=seed,
        runtime=watched,
    )
    seconds = time.perf_counter() - begin
    rows[-1] |= measured(evaluate, network)
    return Repair(
        model=network,
        status="repaired",
        summary=f"The model was trained on {len(data)} clean pairs for "
        f"{settings.epochs} epochs. Whether a backdoor was there or is gone was not "
        "measured.",
        stop_reason="all epochs were done",
        history=tuple(rows),
        image_ids={"trusted": data.ids},
        provenance=Provenance(
            method=method,
            settings=own_settings,
            seed=seed,
            seconds=time.perf_counter() - start,
            forwards_per_image=forwards_per_image,
        ),
        seconds={"train": seconds},
    )
