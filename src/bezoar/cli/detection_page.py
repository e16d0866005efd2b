"""The page of a detection: what has to be read anew for it, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from bezoar.cli.runs import Run, versions
from bezoar.data import ImageData, ImageSource, Unreadable
from bezoar.engine import collect
from bezoar.errors import DivergedError, ModelError
from bezoar.metrics import represent
from bezoar.report import (
    Decision,
    Report,
    choose,
    detection_sections,
    make_report,
    run_facts,
    verdict_of,
)
from bezoar.results import Detection
from bezoar.runtime import Runtime

_LARGEST = 96  # pixels that a thumbnail can show


def detection_report(
    found: Detection,
    *,
    source: ImageSource,
    model: nn.Module | None,
    image_size: tuple[int, int],
    unreadable: Sequence[Unreadable],
    remarks: Sequence[str],
    decisions: Mapping[str, Decision],
    run: Run,
    runtime: Runtime,
) -> Report:
    """Return the report of a detection on a set.

    The most suspicious images are read anew: at the size that they were scored at for
    their neighbours, and larger for the eye where the set has them larger.

    Args:
        found: The detection.
        source: The images.
        model: What was looked at; names the neighbours.
        image_size: Height and width that images were scored at.
        unreadable: Images that could not be read.
        remarks: What else the reader should know.
        decisions: What a person decided, by id.
        run: How it came about.
        runtime: Where and how to run.

    Returns:
        The report, for ``report.json`` and the page.
    """
    ids = [found.ids[i] for i in choose(found).pictured]
    scored = collect(source, ids, image_size=image_size)
    height, width = source.probe_size(largest=_LARGEST)
    shown = scored
    if height * width > image_size[0] * image_size[1]:
        shown = collect(source, ids, image_size=(height, width))
    sections = detection_sections(
        found,
        images=shown,
        vectors=_vectors(scored, model, runtime),
        decisions=decisions,
        unreadable=unreadable,
        remarks=remarks,
        gallery_text="Every image of the set has its row in scores.parquet.",
    )
    return make_report(
        title=f"detect {source.spec}",
        verdict=verdict_of(found),
        sections=sections,
        run=run_facts(
            command=run.command,
            settings={**run.settings, **found.provenance.settings},
            seeds={"seed": run.seed},
            versions=versions(),
            fingerprints=run.fingerprints,
            seconds=run.timings,
        ),
    )


def _vectors(
    images: ImageData, model: nn.Module | None, runtime: Runtime
) -> Tensor | None:
    if model is None:
        return None
    quiet = replace(runtime, progress=Runtime().progress, work_dir=None)
    try:
        return represent(images, model=model, runtime=quiet).vectors[0]
    except (ModelError, DivergedError):  # the page does without neighbours
        return None
