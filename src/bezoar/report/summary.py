"""Results to one plain dict: what ``report.json`` holds and the page shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from bezoar.report.schema import VERSION, check_report
from bezoar.report.sections import Section
from bezoar.results import Provenance
from bezoar.storage import as_plain

Report: TypeAlias = dict[str, Any]
Tone: TypeAlias = Literal["alarm", "caution", "calm", "plain"]

NOT_TESTED = (
    "less than about 2 % of poison, and fewer than some dozens of images of a class",
    "triggers that lead to every class at once",
    "faint patterns over the whole image, and poison made to be missed",
    "wrong labels without a trigger, near-duplicates, bias",
)
"""What a detection by classes does not look for."""

LIMITS = (
    "A score is a reason to look at an image, not an accusation of whoever made it.",
    "Nothing found means that the attacks it knows how to see left no trace that it "
    "could see. It does not clear the data.",
    "Someone who knows the method can make poison that it misses.",
)
"""How to read a verdict, and how not to."""

_WORDS: dict[str, tuple[Tone, str]] = {
    "found": ("alarm", "This set seems to hold poison"),
    "look": ("caution", "Weak signs of poison: look closer"),
    "nothing found": ("calm", "No poison found"),
    "not scoreable": ("caution", "These scores say nothing"),
    "ranking": ("plain", "Images are ranked, without a verdict"),
    "purified": ("calm", "The images were purified"),
    "repaired": ("calm", "The model has forgotten what was found"),
    "stopped": ("caution", "The repair stopped short of its aim"),
}


def make_report(
    *,
    title: str,
    verdict: Mapping[str, Any],
    sections: Iterable[Section],
    run: Mapping[str, Any],
    not_tested: Sequence[str] = NOT_TESTED,
    limits: Sequence[str] = LIMITS,
) -> Report:
    """Put a report together from its parts, and check it.

    Args:
        title: What was done to what, such as "detect photos".
        verdict: From ``verdict_of`` or ``make_verdict``.
        sections: The parts of the page, in order; from the builders of
            ``bezoar.report``.
        run: From ``run_facts``.
        not_tested: What was not looked for.
        limits: How to read the result, and how not to.

    Returns:
        Plain values that follow the schema; an ``InputError`` follows parts that do
        not fit it.

    Example:
        >>> from bezoar.report.sections import notes
        >>> report = make_report(
        ...     title="guard photos",
        ...     verdict=make_verdict("nothing found", summary="No class stands out."),
        ...     sections=[notes("Remarks", ["there were no labels"])],
        ...     run=run_facts(command="bezoar guard photos", seeds={"seed": 0}),
        ... )
        >>> report["verdict"]["headline"], report["verdict"]["tone"]
        ('No poison found', 'calm')
    """
    plain = as_plain(
        {
            "schema": "bezoar.report",
            "version": VERSION,
            "title": title,
            "verdict": verdict,
            "sections": list(sections),
            "not_tested": not_tested,
            "limits": limits,
            "run": run,
        }
    )
    return check_report(plain)


def make_verdict(
    status: str,
    *,
    summary: str,
    tone: Tone | None = None,
    headline: str = "",
    **figures: object,
) -> dict[str, Any]:
    """Return a verdict for people and programs.

    Args:
        status: The word that programs look at, such as "found".
        summary: One or two sentences for a reader who is not a researcher.
        tone: How the page looks; by the status if it is not given.
        headline: The first line; by the status if it is not given.
        **figures: More of what the schema knows: "num_images", "num_flagged",
            "expected_false_alarms", "poison_rate", "poison_rate_interval",
            "target_class".

    Returns:
        The verdict.
    """
    known, words = _WORDS.get(status, ("plain", status[:1].upper() + status[1:]))
    return {
        "status": status,
        "tone": tone or known,
        "headline": headline or words,
        "summary": summary,
        **figures,
    }


def run_facts(
    *,
    command: str = "",
    settings: Mapping[str, object] | None = None,
    seeds: Mapping[str, int] | None = None,
    versions: Mapping[str, str] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return how a result came about; enough to make it again.

    Args:
        command: As it was typed.
        settings: Of the method or of each step.
        seeds: By name.
        versions: Of the packages that the numbers depend on.
        fingerprints: Of data and models.
        seconds: By stage.

    Returns:
        The facts.
    """
    return {
        "command": command,
        "settings": dict(settings or {}),
        "seeds": dict(seeds or {}),
        "versions": dict(versions or {}),
        "fingerprints": dict(fingerprints or {}),
        "seconds": dict(seconds or {}),
    }


def run_of(provenance: Provenance, *, command: str = "") -> dict[str, Any]:
    """Return how a single result came about.

    Args:
        provenance: Of the result.
        command: As it was typed, if it was.

    Returns:
        The facts.
    """
    return run_facts(
        command=command,
        settings={"method": provenance.method, **provenance.settings},
        seeds={"seed": provenance.seed},
        versions=provenance.versions,
        seconds={provenance.method: round(provenance.seconds, 3)},
    )
