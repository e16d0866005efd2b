"""What a page shows of a detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bezoar.data import ImageData, Unreadable
from bezoar.report.gallery import Decision, gallery
from bezoar.report.sections import (
    Section,
    filled,
    histogram,
    notes,
    table,
    unreadable_notes,
)
from bezoar.report.summary import make_verdict
from bezoar.results import Detection
from bezoar.shapes import Float


def verdict_of(found: Detection) -> dict[str, Any]:
    """Return the verdict of a detection.

    Args:
        found: The detection.

    Returns:
        The verdict; its target class bears its name.
    """
    verdict = found.verdict
    alarms = verdict.expected_false_alarms
    return make_verdict(
        verdict.status,
        summary=verdict.summary,
        num_images=len(found.ids),
        num_flagged=verdict.num_flagged,
        expected_false_alarms=alarms if verdict.num_flagged > 0 else None,
        poison_rate=verdict.poison_rate,
        poison_rate_interval=verdict.poison_rate_interval,
        target_class=_class_name(found.class_names, verdict.target_class),
    )


def detection_sections(
    found: Detection,
    *,
    images: ImageData | None = None,
    vectors: Float[Tensor, "m d"] | None = None,
    captions: Mapping[str, str] | None = None,
    decisions: Mapping[str, Decision] | None = None,
    unreadable: Sequence[Unreadable] = (),
    remarks: Sequence[str] = (),
    gallery_text: str = "",
) -> list[Section]:
    """Return what a page shows of a detection.

    Args:
        found: The detection.
        images: As for ``gallery``.
        vectors: As for ``gallery``.
        captions: As for ``gallery``.
        decisions: As for ``gallery``.
        unreadable: Images that could not be read.
        remarks: What else the reader should know.
        gallery_text: A sentence above the images.

    Returns:
        The sections, empty ones left out.
    """
    parts = [
        notes("Remarks", [*found.verdict.health, *remarks]),
        histogram(
            "Scores of all images",
            found.scores,
            found.flagged,
            text="Each bar counts images; the further right, the more suspicious.",
        ),
        gallery(
            found,
            images=images,
            vectors=vectors,
            captions=captions,
            decisions=decisions,
            text=gallery_text,
        ),
        _classes(found),
        unreadable_notes(unreadable),
    ]
    return filled(parts)


def _classes(found: Detection) -> Section:
    rows = [
        (
            _class_name(found.class_names, e.label),
            e.num_images,
            e.status,
            e.num_flagged,
            round(e.excess, 4),
            round(e.z, 2),
            e.transplant_rate,
            e.control_rate,
        )
        for e in sorted(found.verdict.classes, key=lambda e: -e.excess)
    ]
    names = ("class", "images", "status", "flagged", "excess", "z")
    more = ("transplanted", "control")
    return table(
        "Class by class",
        (*names, *more),
        rows,
        text="Excess: share of the class that is decided by less than the other "
        "classes lead to expect. Transplanted: share of other images that the model "
        "takes for this class once those small parts are pasted on them; control: the "
        "same with parts of its least suspicious images.",
    )


def _class_name(names: Sequence[str], label: int | None) -> str | None:
    if label is None:
        return None
    return names[label] if 0 <= label < len(names) else str(label)
