"""The page of the demo: what was found, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bezoar.metrics import represent
from bezoar.report import (
    Report,
    choose,
    detection_sections,
    evaluation_card,
    make_report,
    run_facts,
    step,
    steps,
    verdict_of,
)
from bezoar.results import Detection, Evaluation, Poisoned

_TOLD = {
    "poison": "a small square was put on some of the images, and their label changed",
    "train": "a network learnt from them, and the backdoor with it",
    "detect": "it was told neither the square, nor the class, nor how many",
    "retrain": "the same network learnt again, without the flagged images",
}


def demo_report(
    drill: Poisoned,
    found: Detection,
    before: Evaluation,
    after: Evaluation,
    *,
    victim: nn.Module,
    figures: Mapping[str, Any],
    command: str,
) -> Report:
    """Return the report of the demo.

    Args:
        drill: The poisoned set.
        found: The detection.
        before: The model that was trained on it.
        after: The model that was trained without the flagged images.
        victim: The first of these models; names the neighbours.
        figures: Settings, seconds, versions and the seed.
        command: What makes it again.

    Returns:
        The report, for ``report.json`` and the page.
    """
    place = {id_: i for i, id_ in enumerate(drill.data.ids)}
    shown = [place[found.ids[i]] for i in choose(found).pictured]
    images = drill.data.take(found.labels.new_tensor(shown))
    parts = detection_sections(
        found,
        images=images,
        vectors=represent(images, model=victim).vectors[0],
        remarks=(
            "a drill: the truth is known, and "
            f"{int((found.flagged & drill.is_poison).sum())} of the "
            f"{len(drill.poison_indices)} poisoned images are flagged",
        ),
    )
    seconds = figures["seconds"]
    done = [step(n, "done", t, seconds=seconds.get(n)) for n, t in _TOLD.items()]
    card = evaluation_card(
        before,
        after,
        title="The model before and after",
        text="Trained on the poisoned images, and trained without the flagged ones.",
    )
    return make_report(
        title="demo: handwritten digits",
        verdict=verdict_of(found),
        sections=[*parts, card, steps(done, title="What the demo did")],
        run=run_facts(
            command=command,
            settings=figures["settings"],
            seeds={"seed": figures["seed"]},
            versions=figures["versions"],
            seconds=seconds,
        ),
    )
