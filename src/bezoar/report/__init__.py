"""The page that people look at, made from results alone."""

from bezoar.report.cleanlab import cleanlab
from bezoar.report.decisions import Decisions, read_decisions
from bezoar.report.detection import detection_sections, verdict_of
from bezoar.report.fiftyone import fiftyone
from bezoar.report.gallery import Chosen, Decision, choose, gallery
from bezoar.report.huggingface import add_columns, huggingface
from bezoar.report.page import read_report, render, write_page
from bezoar.report.pictures import difference, masked, picture
from bezoar.report.purification import purification_sections
from bezoar.report.repair import evaluation_card, repair_sections
from bezoar.report.sarif import sarif
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
    "Decisions",
    "Report",
    "Section",
    "add_columns",
    "card",
    "check_report",
    "choose",
    "cleanlab",
    "detection_sections",
    "difference",
    "evaluation_card",
    "facts",
    "fiftyone",
    "gallery",
    "histogram",
    "huggingface",
    "make_report",
    "make_verdict",
    "masked",
    "measured",
    "notes",
    "picture",
    "pictures",
    "purification_sections",
    "read_decisions",
    "read_report",
    "render",
    "repair_sections",
    "run_facts",
    "run_of",
    "sarif",
    "schema",
    "step",
    "steps",
    "table",
    "unreadable_notes",
    "verdict_of",
    "write_page",
]
