"""The page that people look at, made from results alone."""

from bezoar.report.detection import detection_sections, verdict_of
from bezoar.report.gallery import Chosen, Decision, choose, gallery
from bezoar.report.page import read_report, render, write_page
from bezoar.report.pictures import difference, masked, picture
from bezoar.report.purification import purification_sections
from bezoar.report.repair import evaluation_card, repair_sections
from bezoar.report.schema import check_report, schema
from bezoar.report.sections import (
    Section,
    card,
    facts,
    histogram,
    measured,
    notes,
    pictures,
    step,
    steps,
    table,
    unreadable_notes,
)
from bezoar.report.summary import (
    LIMITS,
    NOT_TESTED,
    Report,
    make_report,
    make_verdict,
    run_facts,
    run_of,
)

__all__ = [
    "LIMITS",
    "NOT_TESTED",
    "Chosen",
    "Decision",
    "Report",
    "Section",
    "card",
    "check_report",
    "choose",
    "detection_sections",
    "difference",
    "evaluation_card",
    "facts",
    "gallery",
    "histogram",
    "make_report",
    "make_verdict",
    "masked",
    "measured",
    "notes",
    "picture",
    "pictures",
    "purification_sections",
    "read_report",
    "render",
    "repair_sections",
    "run_facts",
    "run_of",
    "schema",
    "step",
    "steps",
    "table",
    "unreadable_notes",
    "verdict_of",
    "write_page",
]
