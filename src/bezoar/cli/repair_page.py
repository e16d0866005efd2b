"""The page of a repair: a card of before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from bezoar.catalog import ENCODER_REPAIRS, name_of
from bezoar.cli.runs import versions
from bezoar.report import (
    Report,
    make_report,
    make_verdict,
    repair_sections,
    run_facts,
)

if TYPE_CHECKING:
    from bezoar.cli.mending import Mended

_NOT_TESTED = (
    "backdoors that the detection did not find: the repair unlearns what was found",
    "what the repair costs on images like those of the model's task, unless test "
    "images were given",
)
_NOT_TESTED_OF_ENCODERS = (
    "whether the encoder was backdoored before, or is so now: no trigger was shown",
    "what the repair costs on a task: compare a classifier on both encoders' vectors",
    "clean images from elsewhere than those that the encoder was trained on",
)
_LIMITS_OF_ENCODERS = (
    "A cosine near 1 says that the encoders agree on clean images, and nothing about "
    "images with a trigger.",
)
_LIMITS = (
    "A low attack success rate is one of the trigger that was shown, and of no other.",
)


def repair_report(
    mended: Mended, *, fingerprints: Mapping[str, str], seconds: float
) -> Report:
    """Return the report of a repair.

    Args:
        mended: What came of it.
        fingerprints: Of data and models.
        seconds: How long it took.

    Returns:
        The report, for ``report.json`` and the page.
    """
    repair, task = mended.repair, mended.task
    is_encoder = type(task.method) in ENCODER_REPAIRS.values()
    return make_report(
        title=f"repair {task.spec}",
        verdict=make_verdict(
            repair.status,
            summary=repair.summary,
            headline="There was nothing to forget"
            if repair.status == "nothing found"
            else "",
        ),
        sections=repair_sections(
            repair, before=mended.before, after=mended.after, remarks=mended.remarks
        ),
        not_tested=_NOT_TESTED_OF_ENCODERS if is_encoder else _NOT_TESTED,
        limits=_LIMITS_OF_ENCODERS if is_encoder else _LIMITS,
        run=run_facts(
            command=task.command,
            settings={"method": name_of(task.method), **asdict(task.method)},
            seeds={"seed": task.seed},
            versions=versions(),
            fingerprints=fingerprints,
            seconds={"total": round(seconds, 3)},
        ),
    )
