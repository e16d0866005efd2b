"""The page of a guard: every step's results as sections of one report."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.engine import collect
from bezoar.errors import BezoarError
from bezoar.guarding.cleaning import Cleaned
from bezoar.guarding.finding import Findings
from bezoar.guarding.outcome import Guarded
from bezoar.guarding.task import Task
from bezoar.metrics import represent
from bezoar.models import backbone_of
from bezoar.report import (
    NOT_TESTED,
    Report,
    Section,
    choose,
    detection_sections,
    evaluation_card,
    facts,
    make_report,
    make_verdict,
    notes,
    picture,
    pictures,
    purification_sections,
    repair_sections,
    run_facts,
    step,
    steps,
    table,
    unreadable_notes,
    verdict_of,
)
from bezoar.results import Provenance
from bezoar.runtime import Runtime

_LARGEST = 96  # pixels that a thumbnail can show
_EXAMPLES = 12  # purified images to show
_GROUPS = 50  # groups of duplicates to list


def account(
    task: Task, guarded: Guarded, findings: Findings, cleaned: Cleaned
) -> Report:
    """Return the report of a guard.

    Args:
        task: The guard.
        guarded: What it came to.
        findings: What is wrong with the set.
        cleaned: What became of it.

    Returns:
        The report, for ``report.json`` and the page.
    """
    sections = [
        facts("What to use", _to_use(guarded)),
        steps(
            step(s.name, s.status, s.reason, seconds=s.seconds) for s in guarded.steps
        ),
        *_measured(guarded),
        *_detected(task, findings),
        *_diagnosed(guarded),
        *_screened(guarded),
        *_verified(guarded),
        *_purified(task, guarded, cleaned),
        *_repaired(guarded),
    ]
    return make_report(
        title=f"guard {task.source.spec}",
        verdict=_verdict(guarded),
        sections=[part for part in sections if part.get("rows", part) != []],
        run=run_facts(
            command=task.command,
            settings=settings_of(task),
            seeds={"seed": task.seed},
            versions=versions(),
            fingerprints=fingerprints_of(task),
            seconds={s.name: s.seconds for s in guarded.steps if s.seconds is not None},
        ),
        not_tested=[*NOT_TESTED[:-1], "wrong labels without a trigger, bias"],
    )


def settings_of(task: Task) -> dict[str, object]:
    """Return everything that the user could have changed.

    Args:
        task: The guard.

    Returns:
        The rule, the tools and the rest, as plain values.
    """
    tools = task.tools
    return {
        "rule": asdict(task.rule),
        "detector": {"method": type(task.detector).__name__, **asdict(task.detector)},
        "diagnosis": asdict(tools.diagnosis),
        "purifier": {"method": type(tools.purifier).__name__, **asdict(tools.purifier)},
        "repair": {"method": type(tools.repair).__name__, **asdict(tools.repair)},
        "pair_repair": {
            "method": type(tools.pair_repair).__name__,
            **asdict(tools.pair_repair),
        },
        "training": asdict(tools.training),
        "final_training": asdict(tools.final_training),
        "model": task.model_text,
        "image_size": list(task.image_size),
        "skip": sorted(task.skip),
        "decisions": len(task.decisions.by_id),
    }


def fingerprints_of(task: Task) -> dict[str, str]:
    """Return digests of what was given.

    Args:
        task: The guard.

    Returns:
        By name.
    """
    found = {"data": task.data_key}
    return found | ({"model": task.model_key} if task.model_key else {})


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on.

    Returns:
        By name.
    """
    told = Provenance(
        method="guard", settings={}, seed=0, seconds=0, forwards_per_image=0
    )
    return dict(told.versions)


def _verdict(guarded: Guarded) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if guarded.detection is not None:
        figures = verdict_of(guarded.detection)
    elif guarded.verified is not None:
        figures["num_images"] = guarded.verified.num_images
    for name in ("status", "tone", "headline", "summary"):
        figures.pop(name, None)
    headline, tone = "", None
    if guarded.status == "not looked":
        headline, tone = "Nothing was judged", "caution"
    elif guarded.screening is not None and guarded.screening.found:
        headline = "Images hold noise that makes them unlearnable"
    return make_verdict(
        guarded.status,
        summary=guarded.summary,
        headline=headline,
        tone=tone,  # type: ignore[arg-type]
        **figures,
    )


def _to_use(guarded: Guarded) -> list[tuple[str, str]]:
    if guarded.clean is not None:
        images = f"the clean set in {guarded.clean}"
    elif guarded.plan.changes:
        images = "none was written; see the steps"
    else:
        images = "the set as it was given; nothing was changed"
    model = "" if guarded.model is None else f"the one in {guarded.model}"
    return [("images", images), ("model", model), ("decided", guarded.plan.summary)]


def _measured(guarded: Guarded) -> list[Section]:
    if guarded.before is None and guarded.after is None:
        return []
    return [evaluation_card(guarded.before, guarded.after)]


def _detected(task: Task, findings: Findings) -> list[Section]:
    found = findings.found
    if found is None:
        return [unreadable_notes(findings.unreadable)] if findings.unreadable else []
    images, vectors = _pictures(task, findings)
    remarks = [f"scored with {findings.model_text}"] if findings.model_text else []
    remarks += [task.decisions.remark()] * bool(task.decisions.by_id)
    return detection_sections(
        found,
        images=images,
        vectors=vectors,
        captions=None if task.pairs is None else dict(task.pairs.captions()),
        decisions=task.decisions.by_id,
        unreadable=findings.unreadable,
        remarks=remarks,
    )


def _pictures(task: Task, findings: Findings) -> tuple[ImageData, Tensor | None]:
    assert findings.found is not None
    ids = [findings.found.ids[i] for i in choose(findings.found).pictured]
    scored = collect(task.source, ids, image_size=task.image_size)
    height, width = task.source.probe_size(largest=_LARGEST)
    shown = scored
    if height * width > task.image_size[0] * task.image_size[1]:
        shown = collect(task.source, ids, image_size=(height, width))
    if findings.model is None:
        return shown, None
    quiet = replace(task.runtime, progress=Runtime().progress, work_dir=None)
    try:
        vectors = represent(
            scored, model=backbone_of(findings.model), runtime=quiet
        ).vectors[0]
    except BezoarError:  # the page does without neighbours
        return shown, None
    return shown, vectors


def _diagnosed(guarded: Guarded) -> list[Section]:
    found = guarded.diagnosis
    if found is None:
        return []
    patch = [
        picture((pixels * 255).round().clamp(0, 255).to(torch.uint8).cpu())
        for pixels in (found.mask.expand(3, -1, -1), found.pattern)
    ]
    told = f"{found.area:.1%} of the image; cosine {found.cosine:.3f} with it"
    return [
        pictures(
            "The smallest patch that makes images look alike to the encoder",
            ("where", "what"),
            [("patch", told, patch)],
            text=found.summary,
        ),
        notes("What the search in the encoder does not tell", found.limits),
    ]


def _screened(guarded: Guarded) -> list[Section]:
    found = guarded.screening
    if found is None:
        return []
    rows = [
        (name, round(share, 4), round(found.treated[name], 4), found.alarms.get(name))
        for name, share in found.given.items()
    ]
    return [
        table(
            "Noise that goes with the class",
            ("probe", "told as given", "told after treatment", "alarm from a loss of"),
            rows,
            text=f"{found.summary} Looked at {found.num_images:,} images.",
        )
    ]


def _verified(guarded: Guarded) -> list[Section]:
    found = guarded.verified
    if found is None:
        return []
    kinds = (
        ("Files that are there twice", found.exact),
        ("Images that show the same", found.near),
        ("Equal files under several labels", found.conflicts),
    )
    sections = []
    for title, groups in kinds:
        told = [" = ".join(group[:5]) for group in groups[:_GROUPS]]
        if len(groups) > _GROUPS:
            told.append(f"and {len(groups) - _GROUPS:,} more groups in verified.json")
        sections += [notes(title, told)] * bool(told)
    if found.captions:
        rows = [(text[:200], count) for text, count in found.captions]
        sections.append(table("Repeated captions", ("caption", "times"), rows))
    return sections


def _purified(task: Task, guarded: Guarded, cleaned: Cleaned) -> list[Section]:
    report = guarded.purification
    if report is None or cleaned.purified is None:
        return []
    moved = report.columns["psnr"].argsort()[:_EXAMPLES].tolist()
    ids = [report.ids[i] for i in moved]
    new = [cleaned.purified.images(id_) for id_ in ids]
    shown = [(i, image) for i, image in zip(ids, new, strict=True) if image is not None]
    if not shown:
        return purification_sections(report)
    height, width = shown[0][1].shape[1:]
    before = collect(task.source, [i for i, _ in shown], image_size=(height, width))
    after = replace(before, images=torch.stack([image for _, image in shown]))
    return purification_sections(report, before=before, after=after)


def _repaired(guarded: Guarded) -> list[Section]:
    return [] if guarded.repair is None else repair_sections(guarded.repair)
