"""What a person and a script are told about a detection."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar import Detection, Provenance, Verdict
from bezoar.cli.detection_text import (
    Outcome,
    agreement_of,
    detection_json,
    detection_text,
)
from bezoar.data import Unreadable
from bezoar.storage import save_detection

VERDICT = Verdict(
    status="found",
    rule="class_scan",
    summary="2 of 4 images look poisoned.",
    num_flagged=2,
    expected_false_alarms=0.2,
    poison_rate=0.456,
    poison_rate_interval=(0.25, 0.5),
    target_class=1,
    health=("collapsing: lower l1_weight",),
)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    found = Detection(
        ids=("a.png", "b\x1b[2J.png", "c.png", "d.png"),
        labels=torch.tensor([0, 1, 1, 0]),
        class_names=("cat", "dog"),
        scores=torch.tensor([0.1, 0.9, 0.8, 0.3]),
        p_values=None,
        flagged=torch.tensor([False, True, True, False]),
        reasons=("", "small", "small", ""),
        columns={"predicted": torch.tensor([0.0, 1.0, 0.0, 1.0])},
        verdict=VERDICT,
        provenance=Provenance(
            method="m", settings={}, seed=0, seconds=1.0, forwards_per_image=1.0
        ),
    )
    unreadable = tuple(Unreadable(id=f"{i}.jpg", reason="damaged") for i in range(5))
    save_detection(found, tmp_path, unreadable=unreadable)
    return Outcome(
        found=found,
        unreadable=unreadable,
        folder=tmp_path,
        model="resnet18",
        clean=Path("clean"),
        num_written=2,
        remarks=("the names differ",),
        seconds={"detect": 1.5},
    )


def test_all_that_matters_is_told(outcome: Outcome) -> None:
    text = detection_text(outcome)
    assert text.startswith(VERDICT.summary)
    for words in (
        "found (rule: class_scan)",
        "4 scored, 5 unreadable",
        "2, about 0 of them innocent",
        "about 45.6 % (90 % interval: 25.0 % to 50.0 %)",
        "1, 'dog'",
        "2 images in clean",
        "collapsing: lower l1_weight",
        "the names differ",
        "only 50.0 % of the images their label",
        "0.jpg: damaged",
        "and 2 more",
        str(outcome.folder / "scores.parquet"),
        "Not tested",
    ):
        assert words in text
    ranked = [line for line in text.splitlines() if line[:3] in ("1  ", "2  ", "3  ")]
    assert [line.split()[-1] for line in ranked] == [r"b\x1b[2J.png", "c.png", "d.png"]
    assert "\x1b" not in text


def test_the_object_holds_the_report_and_more(outcome: Outcome) -> None:
    told = detection_json(outcome)
    assert told["num_images"] == 4
    assert told["num_written"] == 2
    assert isinstance(told["remarks"], list)
    assert len(told["remarks"]) == 3
    assert isinstance(told["top"], list)
    assert [row["flagged"] for row in told["top"]] == [True, True, False, False]


def test_what_is_not_known_is_left_out(outcome: Outcome) -> None:
    verdict = Verdict(
        status="nothing found",
        rule="reference",
        summary="Nothing found.",
        num_flagged=0,
        expected_false_alarms=0.0,
        poison_rate=0.0,
    )
    found = replace(
        outcome.found,
        verdict=verdict,
        class_names=(),
        labels=torch.full((4,), -1),
        flagged=torch.zeros(4, dtype=torch.bool),
    )
    text = detection_text(
        replace(outcome, found=found, unreadable=(), clean=None, remarks=())
    )
    assert "about 0.0 %\n" in text
    for words in ("flagged  ", "target class", "clean set", "their label", "interval"):
        assert words not in text.replace("rank  score  flagged  label", "")
    assert "own predictions took their place" in text
    assert agreement_of(outcome.found) == 0.5
    assert agreement_of(found) is None
