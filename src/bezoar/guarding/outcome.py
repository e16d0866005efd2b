"""What a guard comes to, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bezoar.guarding.cleaning import Cleaned
from bezoar.guarding.decide import Plan
from bezoar.guarding.finding import Findings
from bezoar.guarding.healing import Healed
from bezoar.guarding.ledger import ON_REQUEST, Step
from bezoar.guarding.verify import Verified
from bezoar.results import (
    Detection,
    Diagnosis,
    Evaluation,
    PurificationReport,
    Repair,
    Screening,
)

Status = Literal["found", "look", "nothing found", "ranking", "not looked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Guarded:
    """What a guard came to.

    Attributes:
        status: "found" (a backdoor, or noise that makes images unlearnable), "look"
            (weak signs), "nothing found", "ranking" (images are ranked, without a
            verdict), or "not looked" (no step that judges could do its work).
        summary: A few sentences for a reader who is not a researcher.
        folder: Where everything lies.
        clean: The clean set; None where the one given is to be used as it is, or none
            could be written.
        model: The model without what was found; None where none was made.
        steps: What came of each step, in order.
        verified: What reading every file came to; None where that was not done. So
            with the others.
        screening: What the look at the whole set came to.
        detection: The scores and the verdict.
        diagnosis: What the search for a trigger says about an encoder.
        plan: What became of each image.
        purification: What the purifier did to each image.
        repair: How the model forgot.
        before: The model that the detection looked at, on the test images.
        after: The model without what was found, on them.
    """

    status: Status
    summary: str
    folder: Path
    clean: Path | None
    model: Path | None
    steps: tuple[Step, ...]
    verified: Verified | None
    screening: Screening | None
    detection: Detection | None
    diagnosis: Diagnosis | None
    plan: Plan
    purification: PurificationReport | None
    repair: Repair | None
    before: Evaluation | None
    after: Evaluation | None

    @property
    def found(self) -> bool:
        """Whether there is poison in the set."""
        return self.status == "found"

    @property
    def exit_code(self) -> int:
        """What ``bezoar guard`` ends with.

        1 where there is poison; 2 where nothing was judged although it was to be, or
        a step failed; else 0.
        """
        if self.found:
            return 1
        asked = not any(
            s.name == "detect" and s.reason == ON_REQUEST for s in self.steps
        )
        return 2 if self.failed or (self.status == "not looked" and asked) else 0

    @property
    def failed(self) -> tuple[Step, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.status == "failed")


def conclude(
    folder: Path,
    steps: tuple[Step, ...],
    findings: Findings,
    cleaned: Cleaned,
    healed: Healed,
) -> Guarded:
    """Put together what a guard came to.

    Args:
        folder: Of the run.
        steps: What came of each.
        findings: What is wrong with the set.
        cleaned: What became of it.
        healed: The model.

    Returns:
        The result.
    """
    status = _status(findings, steps)
    return Guarded(
        status=status,
        summary=" ".join(_sentences(status, findings, cleaned, healed)),
        folder=folder,
        clean=cleaned.clean,
        model=healed.path,
        steps=steps,
        verified=findings.verified,
        screening=findings.screening,
        detection=findings.found,
        diagnosis=findings.diagnosis,
        plan=cleaned.plan,
        purification=cleaned.purified.report if cleaned.purified else None,
        repair=healed.repair,
        before=healed.before,
        after=healed.after,
    )


def _status(findings: Findings, steps: tuple[Step, ...]) -> Status:
    screened = findings.screening.status if findings.screening else ""
    detected = findings.found.verdict.status if findings.found else ""
    on_request = any(s.name == "detect" and s.reason == ON_REQUEST for s in steps)
    if "found" in (screened, detected):
        return "found"
    # A trigger in an encoder is a reason to look: it says nothing about these images.
    suspected = findings.diagnosis is not None and findings.diagnosis.found
    if detected == "look" or suspected:
        return "look"
    if detected == "nothing found":
        return "nothing found"
    if detected == "ranking":
        return "ranking"
    if on_request and screened == "nothing found":
        return "nothing found"
    return "not looked"


def _sentences(
    status: Status, findings: Findings, cleaned: Cleaned, healed: Healed
) -> list[str]:
    told = []
    if findings.found is not None:
        told.append(findings.found.verdict.summary)
    if findings.screening is not None and (
        findings.found is None or findings.screening.found
    ):
        told.append(findings.screening.summary)
    if findings.diagnosis is not None:
        told.append(findings.diagnosis.summary)
    if status == "not looked":
        told.append("Nothing was judged, so this says nothing about the set.")
    if cleaned.clean is not None:
        told.append(
            f"The clean set holds {cleaned.num_written:,} images: "
            f"{cleaned.plan.summary}."
        )
    elif not cleaned.plan.changes and status != "not looked":
        told.append("Nothing was changed: the set given is the one to use.")
    if healed.repair is not None and healed.repair.changed:
        told.append(healed.repair.summary)
    return told
