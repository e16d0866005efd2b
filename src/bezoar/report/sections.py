"""The parts that a page is made of: each builder returns one, as plain values.

A report is a list of them, in any order and number, so that a run of several steps
puts its own together. What each holds is in ``schema.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from bezoar.data import Unreadable
from bezoar.shapes import Bool, Float

Section: TypeAlias = dict[str, Any]
StepStatus: TypeAlias = Literal["done", "restored", "skipped", "cannot run", "failed"]
Better: TypeAlias = Literal["higher", "lower", "neither"]

NUM_BINS = 60
_SHOWN_UNREADABLE = 200
_TAIL = 0.0005  # share of the scores at each end that goes into the outermost bins


def facts(title: str, rows: Iterable[tuple[str, str]], *, text: str = "") -> Section:
    """Return names and values.

    Args:
        title: The heading.
        rows: Names and values; rows with an empty value are left out.
        text: A sentence above.

    Returns:
        The section.

    Example:
        >>> facts("Files", [("images", "7"), ("note", "")])["rows"]
        [['images', '7']]
    """
    filled = [[name, value] for name, value in rows if value]
    return {"type": "facts", "title": title, "text": text, "rows": filled}


def notes(title: str, items: Iterable[str], *, text: str = "") -> Section:
    """Return sentences: warnings, remarks, files that could not be read.

    Args:
        title: The heading.
        items: The sentences.
        text: A sentence above.

    Returns:
        The section.
    """
    return {"type": "notes", "title": title, "text": text, "items": list(items)}


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    text: str = "",
) -> Section:
    """Return rows of numbers and texts.

    Args:
        title: The heading.
        columns: Names of the columns.
        rows: Cells: texts, numbers, booleans or None.
        text: A sentence above.

    Returns:
        The section.
    """
    return {
        "type": "table",
        "title": title,
        "text": text,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
    }


def histogram(
    title: str,
    scores: Float[Tensor, " n"],
    flagged: Bool[Tensor, " n"],
    *,
    label: str = "suspicion score",
    text: str = "",
    bins: int = NUM_BINS,
) -> Section:
    """Return how many images have which score, and from where on they are flagged.

    The outermost bins hold what lies beyond them, so that one odd score does not press
    all others into one bar.

    Args:
        title: The heading.
        scores: Higher is more suspicious; scores that are not finite are left out.
        flagged: Which images are flagged.
        label: What is on the axis.
        text: A sentence above.
        bins: Number of bars.

    Returns:
        The section; its threshold is the lowest score that is flagged.

    Example:
        >>> part = histogram(
        ...     "Scores",
        ...     torch.tensor([0.0, 1.0, 2.0, 9.0]),
        ...     torch.tensor([False, False, False, True]),
        ...     bins=3,
        ... )
        >>> part["counts"], part["flagged"], part["threshold"]
        ([3, 0, 1], [0, 0, 1], 9.0)
    """
    finite = scores.isfinite()
    values, marks = scores[finite].double(), flagged[finite]
    edges = _edges(values, bins)
    place = torch.bucketize(values, edges[1:-1], right=True)
    lowest = values[marks].min().item() if marks.any() else None
    parted = lowest is not None and not bool((values[~marks] >= lowest).any())
    return {
        "type": "histogram",
        "title": title,
        "text": text,
        "label": label,
        "edges": [float(f"{edge:.6g}") for edge in edges.tolist()],
        "counts": torch.bincount(place, minlength=bins).tolist(),
        "flagged": torch.bincount(place[marks], minlength=bins).tolist(),
        "threshold": lowest,
        "threshold_label": "flagged from here on" if parted else "lowest score flagged",
    }


def _edges(values: Tensor, bins: int) -> Tensor:
    if len(values) == 0:
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    ranked = values.sort().values
    cut = int(_TAIL * len(ranked))
    low, high = ranked[cut].item(), ranked[len(ranked) - 1 - cut].item()
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def pictures(
    title: str,
    names: Sequence[str],
    rows: Iterable[tuple[str, str, Sequence[str]]],
    *,
    text: str = "",
) -> Section:
    """Return rows of named pictures, such as before, after and difference.

    Args:
        title: The heading.
        names: What each picture of a row shows.
        rows: Id, a remark and the pictures as data addresses (``pictures.picture``).
        text: A sentence above.

    Returns:
        The section.
    """
    plain = [{"id": i, "note": note, "pictures": list(p)} for i, note, p in rows]
    return {
        "type": "pictures",
        "title": title,
        "text": text,
        "names": list(names),
        "rows": plain,
    }


def measured(
    name: str,
    before: float | None,
    after: float | None,
    *,
    unit: str = "share",
    better: Better = "higher",
) -> Section:
    """Return one line of a card.

    Args:
        name: What was measured.
        before: Its value before; None if unknown.
        after: Its value after.
        unit: "share" for values from 0 to 1, shown in percent; else the unit itself.
        better: Which direction is good.

    Returns:
        The line.
    """
    return {
        "name": name,
        "before": before,
        "after": after,
        "unit": unit,
        "better": better,
    }


def card(title: str, rows: Iterable[Mapping[str, Any]], *, text: str = "") -> Section:
    """Return what was measured before and after.

    Args:
        title: The heading.
        rows: Lines that ``measured`` made.
        text: A sentence above.

    Returns:
        The section.

    Example:
        >>> card("Model", [measured("clean accuracy", 0.9, 0.91)])["rows"][0]["after"]
        0.91
    """
    lines = [dict(row) for row in rows]
    return {"type": "card", "title": title, "text": text, "rows": lines}


def step(
    name: str, status: StepStatus, reason: str = "", *, seconds: float | None = None
) -> Section:
    """Return one step of a run.

    Args:
        name: What was to be done.
        status: "done", "restored" (by an earlier run), "skipped" (on request), "cannot
            run" or "failed".
        reason: What came of it, or why it did not run.
        seconds: How long it took.

    Returns:
        The step.
    """
    return {"name": name, "status": status, "reason": reason, "seconds": seconds}


def steps(
    rows: Iterable[Mapping[str, Any]], *, title: str = "Steps", text: str = ""
) -> Section:
    """Return the steps of a run, in order.

    Args:
        rows: Steps that ``step`` made.
        title: The heading.
        text: A sentence above.

    Returns:
        The section.
    """
    lines = [dict(row) for row in rows]
    return {"type": "steps", "title": title, "text": text, "rows": lines}


def unreadable_notes(unreadable: Sequence[Unreadable]) -> Section:
    """Return the list of files that could not be read.

    Args:
        unreadable: With the reasons.

    Returns:
        The section; of very many files the first.
    """
    shown = [f"{u.id}: {u.reason}" for u in unreadable[:_SHOWN_UNREADABLE]]
    if len(unreadable) > len(shown):
        shown.append(f"and {len(unreadable) - len(shown):,} more in unreadable.csv")
    return notes("Files that could not be read", shown)


def filled(parts: Iterable[Section]) -> list[Section]:
    """Return the parts that hold anything.

    Args:
        parts: Sections.

    Returns:
        Those of them that a page shows something for.
    """
    return [part for part in parts if _has_content(part)]


def _has_content(part: Section) -> bool:
    if part["type"] == "gallery":
        return len(part["columns"]["id"]) > 0
    return part["type"] == "histogram" or bool(part.get("rows", part.get("items")))
