"""What a run of D-VAE comes to, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bezoar.data import ImageData
from bezoar.purify.dvae_passes import rate_health, rates
from bezoar.purify.packing import change_in_words, reported
from bezoar.results import PurificationReport, Scores, Screening
from bezoar.train.class_patterns import LEAST_IMAGES
from bezoar.train.vae import TrainedVAE

_NAMED = 5  # classes that a warning names


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
        The report; its figures have the rates, "classes_with_pattern" where patterns
        were looked for, and, for each probe, "given_NAME" and
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
    passes = [
        stage
        for stage, trained in made.items()
        if trained.network.perturbation_input != "mean"
        or (stage == "fine" and method.output == "reconstruction")
    ]
    patterned = _patterned(made)
    if patterned is not None:
        figures["classes_with_pattern"] = patterned
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
            f"{_pattern_in_words(patterned, made, data)}{len(rows.ids):,} images "
            f"{_way(len(passes), patterned)}{rate}; {change_in_words(rows.columns)}. "
            f"{_verdict(told, nothing_done=not passes and not patterned)}"
        ),
        class_names=data.class_names,
        seed=seed,
        seconds=seconds,
        forwards_per_image=steps + len(passes) + seen,
        health=(
            *rate_health(made, limits, method.kl_weight),
            *_pattern_health(made, data, method.perturbation_mse),
        ),
        figures=figures,
        history=tuple(
            {"stage": stage, **row}
            for stage, trained in made.items()
            for row in trained.history
        ),
    )


def _way(num_networks: int, patterned: float | None) -> str:
    if num_networks == 0:
        lost = "lost the pattern of their class"
        return lost if patterned else "were looked at and left"
    plural = "" if num_networks == 1 else "s"
    return f"passed {num_networks} limited autoencoder{plural}"


def _patterned(made: Mapping[str, TrainedVAE]) -> float | None:
    # The first stage tells; the second looks at what that has left.
    first = next(iter(made.values())).network
    if first.perturbation_input != "mean":
        return None
    means = first.get_buffer("means")
    return float(means.flatten(1).any(1).sum())


def _pattern_in_words(
    patterned: float | None, made: Mapping[str, TrainedVAE], data: ImageData
) -> str:
    if patterned is None:
        return ""
    first = next(iter(made.values()))
    count = len(data.labels.unique()) - len(first.too_few)
    if len(data.labels.unique()) < patterned:  # with networks of a larger set
        count = len(data.class_names)
    if patterned == 0:
        return f"No pattern was found in any of {count} classes. "
    return f"A pattern was found in {patterned:.0f} of {count} classes. "


def _pattern_health(
    made: Mapping[str, TrainedVAE], data: ImageData, limit: float
) -> tuple[str, ...]:
    if _patterned(made) is None:
        return ()
    told = []
    strong = sorted({c for trained in made.values() for c in trained.too_strong})
    if strong:
        told.append(
            f"the images of {_names(strong, data)} are too much alike to tell a "
            f"pattern from what they show (a mean square above {limit:g}): nothing was "
            "subtracted there; if what they share was added, raise perturbation_mse"
        )
    few = next(iter(made.values())).too_few
    if few:
        told.append(
            f"no pattern was looked for in {_names(few, data)}, which takes at least "
            f"{LEAST_IMAGES} images, and two classes that have them; give more images"
        )
    return tuple(told)


def _names(classes: Sequence[int], data: ImageData) -> str:
    shown = ", ".join(data.class_names[c] for c in classes[:_NAMED])
    more = len(classes) - _NAMED
    return shown if more <= 0 else f"{shown} and {more} more"


def _verdict(told: Screening | None, *, nothing_done: bool) -> str:
    if nothing_done:
        return (
            "Noise that is new in each image, filters and smooth patterns are not "
            "looked for."
        )
    if told is None:
        return (
            "What goes with the class was taken away; that says nothing of whether it "
            "was poison."
        )
    kept = "" if told.status != "nothing found" else " The images are those given."
    return f"{told.summary}{kept}"
