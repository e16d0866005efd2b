"""What a run of D-VAE comes to, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bezoar.data import ImageData
from bezoar.purify.dvae_passes import rate_health, rates
from bezoar.purify.packing import change_in_words, reported
from bezoar.results import PurificationReport, Scores, Screening
from bezoar.train.vae import TrainedVAE


def concluded(
    rows: Scores,
    data: ImageData,
    made: Mapping[str, TrainedVAE],
    told: Screening | None,
    *,
    method: Any,
    limits: Mapping[str, float],
    seed: int,
    seconds: float,
) -> PurificationReport:
    """Return the report on a purification.

    Args:
        rows: The columns of all images.
        data: The images given.
        made: The autoencoders by stage.
        told: What the probes say of given and purified images; None if not asked.
        method: The settings of D-VAE.
        limits: Limits of the rates by stage, in nats.
        seed: The seed given.
        seconds: Wall-clock time of the work.

    Returns:
        The report; its figures have the rates and, for each probe, "given_NAME" and
        "purified_NAME", the accuracies on held-out images.
    """
    figures = rates(made, data)
    shares = [
        f"{figures[f'{stage}_bits_per_pixel']:.2f}"
        for stage in made
        if made[stage].history
    ]
    rate = f" at {' and '.join(shares)} bits a pixel" if shares else ""
    # A step is 3 forward passes of an image; purifying takes 3 at most.
    steps = sum(3 * len(trained.history) for trained in made.values())
    seen = 0.0
    if told is not None:
        figures |= {f"given_{name}": value for name, value in told.given.items()}
        figures |= {f"purified_{name}": value for name, value in told.treated.items()}
        seen = told.provenance.forwards_per_image
    return reported(
        rows,
        method=method,
        name="dvae",
        summary=(
            f"{len(rows.ids):,} images passed {len(made)} limited autoencoders"
            f"{rate}; {change_in_words(rows.columns)}. {_verdict(told)}"
        ),
        class_names=data.class_names,
        seed=seed,
        seconds=seconds,
        forwards_per_image=steps + len(made) + seen,
        health=rate_health(made, limits, method.kl_weight),
        figures=figures,
        history=tuple(
            {"stage": stage, **row}
            for stage, trained in made.items()
            for row in trained.history
        ),
    )


def _verdict(told: Screening | None) -> str:
    if told is None:
        return (
            "What goes with the class was taken away; that says nothing of whether it "
            "was poison."
        )
    kept = "" if told.status != "nothing found" else " The images are those given."
    return f"{told.summary}{kept}"
