"""What came of a guard in words, and as one object."""

from __future__ import annotations

from dataclasses import asdict

from bezoar.cli.text import facts, percent, shown, table
from bezoar.guarding import Guarded

_FILES = {
    "report.html": "the page to look at: open it in a browser",
    "report.json": "all of it, for programs",
    "scores.parquet": "every image with its score and rank",
    "actions.parquet": "what became of each image that was not kept as it is",
    "verified.json": "files that cannot be read, or are there twice",
    "steps.json": "the steps, so that a killed run goes on",
    "run.json": "settings, versions and fingerprints",
}


def guard_text(guarded: Guarded) -> str:
    """Return the summary that a person reads.

    Args:
        guarded: What came of the run.

    Returns:
        Some lines.
    """
    rows = [
        (s.name, s.status, "" if s.seconds is None else f"{s.seconds:.1f}", s.reason)
        for s in guarded.steps
    ]
    shortened = [(n, st, sec, shown(_short(reason))) for n, st, sec, reason in rows]
    parts = [
        shown(guarded.summary),
        facts(_to_use(guarded)),
        table(("step", "came to", "seconds", "what"), shortened),
        facts(_files(guarded)),
    ]
    return "\n\n".join(part for part in parts if part)


def guard_json(guarded: Guarded) -> dict[str, object]:
    """Return what ``--json`` prints.

    Args:
        guarded: What came of the run.

    Returns:
        Plain values; those of the page are in ``report.json``.
    """
    verified, found = guarded.verified, guarded.detection
    return {
        "status": guarded.status,
        "summary": guarded.summary,
        "exit_code": guarded.exit_code,
        "folder": str(guarded.folder),
        "clean": None if guarded.clean is None else str(guarded.clean),
        "model": None if guarded.model is None else str(guarded.model),
        "num_dropped": len(guarded.plan.dropped),
        "purified": guarded.plan.purifies,
        "num_flagged": None if found is None else found.verdict.num_flagged,
        "expected_false_alarms": (
            None if found is None else found.verdict.expected_false_alarms
        ),
        "target_class": None if found is None else found.verdict.target_class,
        "screening": (
            None
            if guarded.screening is None
            else {
                "status": guarded.screening.status,
                "given": dict(guarded.screening.given),
                "treated": dict(guarded.screening.treated),
            }
        ),
        "verified": (
            None
            if verified is None
            else {
                "num_images": verified.num_images,
                "num_unreadable": len(verified.unreadable),
                "num_exact_duplicates": sum(len(g) - 1 for g in verified.exact),
                "num_near_duplicates": sum(len(g) - 1 for g in verified.near),
                "num_conflicts": len(verified.conflicts),
            }
        ),
        "before": None if guarded.before is None else asdict(guarded.before),
        "after": None if guarded.after is None else asdict(guarded.after),
        "steps": [
            {
                "name": s.name,
                "status": s.status,
                "reason": s.reason,
                "seconds": s.seconds,
            }
            for s in guarded.steps
        ],
    }


def _to_use(guarded: Guarded) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = [("verdict", guarded.status)]
    if guarded.clean is not None:
        rows.append(("clean set", str(guarded.clean)))
    elif not guarded.plan.changes:
        rows.append(("clean set", "the one given: nothing was changed"))
    if guarded.model is not None:
        rows.append(("clean model", str(guarded.model)))
    for name, title in (
        ("clean_accuracy", "accuracy"),
        ("attack_success_rate", "attack success"),
    ):
        pair = [getattr(e, name, None) for e in (guarded.before, guarded.after)]
        told = [percent(value) for value in pair if value is not None]
        rows.append((title, " -> ".join(told)))
    return rows


def _files(guarded: Guarded) -> list[tuple[str, str]]:
    return [
        (str(guarded.folder / name), what)
        for name, what in _FILES.items()
        if (guarded.folder / name).exists()
    ]


def _short(text: str) -> str:
    first = text.partition(". ")[0]
    return first if len(first) <= 100 else first[:97] + "..."
