"""A detection in words, and as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bezoar.cli.runs import told_in
from bezoar.cli.text import facts, percent, shown, table
from bezoar.data import Unreadable
from bezoar.report import NOT_TESTED
from bezoar.results import Detection

TOP = 10
_POOR_FIT = 0.7  # of the labels; below, the scores are those of a network that guesses


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of ``bezoar detect``.

    Attributes:
        found: The detection.
        unreadable: Images that could not be read.
        folder: Where the files of the run lie.
        model: Where the model is from, in words.
        clean: Where the set without the flagged images was asked to be, if it was.
        num_written: Images written there; 0 when nothing was flagged.
        remarks: What else the reader should know.
        seconds: By stage.
    """

    found: Detection
    unreadable: tuple[Unreadable, ...]
    folder: Path
    model: str
    clean: Path | None
    num_written: int
    remarks: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def files(self) -> dict[str, str]:
        """What was written, and what it is."""
        every = {
            "report.html": "the page to look at: open it in a browser",
            "scores.parquet": "every image with its score and rank",
            "report.json": "the verdict and how it came about",
            "removed.csv": "the flagged images",
            "unreadable.csv": "the images that could not be read",
            "run.json": "settings, versions and fingerprints",
            "model.safetensors": "the model that was trained for this",
            "masks.safetensors": "masks of the most suspicious images",
        }
        return {
            str(self.folder / name): what
            for name, what in every.items()
            if (self.folder / name).exists()
        }


def agreement_of(found: Detection) -> float | None:
    """Return the share of the labels that the model gives as well.

    Args:
        found: The detection.

    Returns:
        The share; None where there are no labels, or no predictions.
    """
    predicted = found.columns.get("predicted")
    if predicted is None or not found.class_names:
        return None
    return (predicted.long() == found.labels).float().mean().item()


def detection_text(outcome: Outcome) -> str:
    """Return the summary that a person reads.

    Args:
        outcome: What came of the run.

    Returns:
        Some lines.
    """
    found, verdict = outcome.found, outcome.found.verdict
    parts = [shown(verdict.summary), _facts_text(outcome)]
    if len(found.ids) > 1:
        parts.append(f"Most suspicious (more: {outcome.folder / 'scores.parquet'})")
        parts.append(_top_text(found))
    parts.append(facts(outcome.files.items()))
    parts.append("Not tested\n" + "\n".join(f"- {text}" for text in NOT_TESTED))
    return "\n\n".join(parts)


def detection_json(outcome: Outcome) -> dict[str, object]:
    """Return what ``--json`` prints.

    Args:
        outcome: What came of the run.

    Returns:
        All of ``report.json`` but what only the page needs, and what is not in it, as
        plain values.
    """
    return {
        **told_in(outcome.folder),
        "unreadable": [{"id": u.id, "reason": u.reason} for u in outcome.unreadable],
        "top": [
            {
                "id": outcome.found.ids[i],
                "label": int(outcome.found.labels[i]),
                "score": float(outcome.found.scores[i]),
                "flagged": bool(outcome.found.flagged[i]),
            }
            for i in _most_suspicious(outcome.found)
        ],
        "clean": None if outcome.clean is None else str(outcome.clean),
        "num_written": outcome.num_written,
        "remarks": [
            *outcome.found.verdict.health,
            *remarks_on(outcome.found, outcome.remarks),
        ],
        "not_tested": list(NOT_TESTED),
        "files": list(outcome.files),
        "seconds": dict(outcome.seconds),
    }


def remarks_on(found: Detection, remarks: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what a reader should know besides the verdict.

    Args:
        found: The detection.
        remarks: What is known of the run.

    Returns:
        Sentences, the most important first.
    """
    agreement = agreement_of(found)
    if agreement is not None and agreement < _POOR_FIT:
        remarks += (
            f"the model gives only {percent(agreement)} of the images their label, and "
            "one that hardly learnt a set says little about it; train longer (--epochs)"
            " or give a better --model",
        )
    if not found.class_names:
        remarks += (
            "there were no labels; the model's own predictions took their place",
        )
    return remarks


def _facts_text(outcome: Outcome) -> str:
    found, verdict = outcome.found, outcome.found.verdict
    bad = len(outcome.unreadable)
    false_alarms = f", about {verdict.expected_false_alarms:.0f} of them innocent"
    rows = [
        ("verdict", f"{verdict.status} (rule: {verdict.rule})"),
        ("images", f"{len(found.ids):,} scored, {bad:,} unreadable"),
        (
            "flagged",
            f"{verdict.num_flagged:,}{false_alarms}" * (verdict.num_flagged > 0),
        ),
        ("poison rate", _poison_rate_text(found)),
        ("target class", _class_name(found, verdict.target_class)),
        ("model", shown(outcome.model)),
        ("clean set", _clean_text(outcome)),
        *(("health", text) for text in verdict.health),
        *(("note", shown(text)) for text in remarks_on(outcome.found, outcome.remarks)),
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in outcome.unreadable[:3]),
    ]
    if bad > 3:
        rows.append(("unreadable", f"and {bad - 3:,} more"))
    return facts(rows)


def _poison_rate_text(found: Detection) -> str:
    verdict = found.verdict
    if verdict.poison_rate is None:
        return ""
    text = f"about {percent(verdict.poison_rate)}"
    if verdict.poison_rate_interval is None:
        return text
    low, high = map(percent, verdict.poison_rate_interval)
    return f"{text} (90 % interval: {low} to {high})"


def _class_name(found: Detection, label: int | None) -> str:
    if label is None:
        return ""
    known = label < len(found.class_names)
    return f"{label}, {shown(found.class_names[label])!r}" if known else str(label)


def _clean_text(outcome: Outcome) -> str:
    if outcome.clean is None:
        return ""
    if outcome.num_written == 0:
        return f"nothing was removed, so {outcome.clean} was not written"
    return f"{outcome.num_written:,} images in {outcome.clean}"


def _most_suspicious(found: Detection) -> list[int]:
    order: list[int] = found.ranks.argsort()[:TOP].tolist()
    return order


def _top_text(found: Detection) -> str:
    rows = [
        (
            str(rank + 1),
            f"{found.scores[i].item():.3f}",
            "yes" if found.flagged[i] else "",
            shown(found.class_names[int(found.labels[i])]) if found.class_names else "",
            shown(found.ids[i]),
        )
        for rank, i in enumerate(_most_suspicious(found))
    ]
    return table(("rank", "score", "flagged", "label", "image"), rows)
