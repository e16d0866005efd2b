"""What a page shows of a repair, and of any model measured before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from bezoar.report.sections import Section, card, facts, filled, measured, notes, table
from bezoar.results import Evaluation, Repair

_MEASURED: dict[str, tuple[str, Literal["higher", "lower"]]] = {
    "clean_accuracy": ("clean accuracy", "higher"),
    "attack_success_rate": ("attack success rate", "lower"),
    "target_class_accuracy": ("accuracy on the target class", "higher"),
    "clean_target_rate": ("taken for the target without the trigger", "lower"),
}
_HISTORY: dict[str, tuple[str, Literal["higher", "lower"]]] = {
    "suspicious_confidence": ("confidence in suspicious labels", "lower"),
    "held_out_accuracy": ("accuracy on trusted images held out", "higher"),
    "held_out_target_accuracy": ("the same in the accused class", "higher"),
}


def repair_sections(
    repair: Repair,
    *,
    before: Evaluation | None = None,
    after: Evaluation | None = None,
    remarks: Sequence[str] = (),
) -> list[Section]:
    """Return what a page shows of a repair.

    Args:
        repair: The repair.
        before: The model on test images.
        after: The repaired model on them.
        remarks: What else the reader should know.

    Returns:
        The sections, empty ones left out.
    """
    parts = [
        notes("Warnings", [*repair.health, *remarks]),
        card("Model before and after", _card_rows(repair, before, after)),
        facts(
            "What it worked on",
            [
                ("stopped", repair.stop_reason),
                *((f"{n} images", f"{len(i):,}") for n, i in repair.image_ids.items()),
            ],
        ),
        _history(repair.history),
    ]
    return filled(parts)


def evaluation_card(
    before: Evaluation | None,
    after: Evaluation | None,
    *,
    title: str = "Model before and after",
    text: str = "",
) -> Section:
    """Return how a classifier does before and after.

    Args:
        before: On test images, before.
        after: On the same images, after.
        title: The heading.
        text: A sentence above.

    Returns:
        The section.
    """
    return card(title, _evaluation_rows(before, after), text=text)


def _evaluation_rows(
    before: Evaluation | None, after: Evaluation | None
) -> list[Section]:
    rows = []
    for key, (name, better) in _MEASURED.items():
        old, new = getattr(before, key, None), getattr(after, key, None)
        if old is not None or new is not None:
            rows.append(measured(name, old, new, better=better))
    return rows


def _card_rows(
    repair: Repair, before: Evaluation | None, after: Evaluation | None
) -> list[Section]:
    rows = _evaluation_rows(before, after)
    if not repair.history:
        return rows
    for key, (name, better) in _HISTORY.items():
        old, new = repair.before.get(key), repair.after.get(key)
        if old is not None and new is not None and old == old and new == new:
            rows.append(measured(name, old, new, better=better))
    return rows


def _history(history: Sequence[Mapping[str, float]]) -> Section:
    names = list(dict.fromkeys(name for row in history for name in row))
    rows = [[i, *(row.get(name) for name in names)] for i, row in enumerate(history)]
    return table("Round by round", ("round", *names), rows if names else [])
