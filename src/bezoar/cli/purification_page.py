"""The page of a purification: the images that changed most, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bezoar.cli.runs import Run, versions
from bezoar.data import ImageSource, Unreadable
from bezoar.engine import collect
from bezoar.report import (
    Report,
    make_report,
    make_verdict,
    purification_sections,
    run_facts,
)
from bezoar.results import PurificationReport

_EXAMPLES = 12
_NOT_TESTED = (
    "whether a network that is trained on the purified images is free of the poison: "
    "train one and measure it",
)
_LIMITS = (
    "Purifying changes images, and may cost accuracy.",
    "Someone who knows the method can make poison that outlives it.",
)


def purification_report(
    report: PurificationReport,
    *,
    source: ImageSource,
    images: Callable[[str], Tensor | None],
    image_size: tuple[int, int],
    unreadable: Sequence[Unreadable],
    run: Run,
) -> Report:
    """Return the report of a purification.

    Args:
        report: What was done to each image.
        source: The images as they were.
        images: The purified images, by id.
        image_size: Height and width that they were purified at.
        unreadable: Images that could not be read.
        run: How it came about.

    Returns:
        The report, for ``report.json`` and the page.
    """
    most = report.columns["psnr"].argsort(stable=True)[:_EXAMPLES].tolist()
    before = collect(source, [report.ids[i] for i in most], image_size=image_size)
    purified = [images(id_) for id_ in before.ids]
    after = replace(before, images=torch.stack([p for p in purified if p is not None]))
    return make_report(
        title=f"purify {source.spec}",
        verdict=make_verdict(
            "purified",
            summary=report.summary,
            tone="caution" if report.health else "calm",
            num_images=len(report.ids),
        ),
        sections=purification_sections(
            report, before=before, after=after, unreadable=unreadable
        ),
        not_tested=_NOT_TESTED,
        limits=_LIMITS,
        run=run_facts(
            command=run.command,
            settings={**run.settings, **report.provenance.settings},
            seeds={"seed": run.seed},
            versions=versions(),
            fingerprints=run.fingerprints,
            seconds=run.timings,
        ),
    )
