"""``bezoar demo``: the flow with tiny settings; its claims in a slow test."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bezoar.attacks import BadNets, read_manifest
from bezoar.cli import demo, demo_pairs
from bezoar.data import content_keys, digit_images, open_source
from bezoar.data.captions import DIGIT_NAMES
from bezoar.detect import CognitiveDistillation
from bezoar.models import Architecture
from bezoar.report import read_report, render
from bezoar.storage import read_object
from bezoar.train import ClipTraining, Training
from tests.cli.conftest import Call


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on 97 digits of eight pixels, with a network that learns nothing."""
    every = digit_images(size=8).take(torch.arange(97))
    small = Architecture(name="convnet", num_classes=10, width=4)
    monkeypatch.setattr(demo, "digit_images", lambda **_: every)
    monkeypatch.setattr(demo, "IMAGE_SIZE", 8)
    monkeypatch.setattr(demo, "NUM_TEST", 30)
    monkeypatch.setattr(demo, "ARCHITECTURE", small)
    monkeypatch.setattr(demo, "TRAINING", Training(epochs=1))
    monkeypatch.setattr(demo, "ATTACK", BadNets(poison_rate=0.1))
    detector = CognitiveDistillation(
        num_masks=2,
        steps=2,
        lr=0.5,
        l1_weight=1e-4,
        threshold="review",
        review_rate=0.2,
    )
    monkeypatch.setattr(demo, "DETECTOR", detector)


@pytest.mark.usefixtures("tiny")
def test_every_stage_is_measured_and_told(bezoar: Call) -> None:
    answer = bezoar("demo", "--out", "d", "--part", "digits")
    assert answer.code == 0
    assert answer.err == ""
    for words in ("1. Poison     7 of 67", "2. Train", "3. Detect", "4. Retrain"):
        assert words in answer.out
    report = read_object(Path("d/report.json"))
    detection, before, after = (report[k] for k in ("detection", "before", "after"))
    assert isinstance(detection, dict)
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert 0 <= detection["auroc"] <= 1
    assert detection["verdict"] == "ranking"
    assert (detection["num_flagged"], detection["num_poisoned"]) == (13, 7)
    assert 0 <= detection["num_hits"] <= 7
    for measured in (before, after):
        assert 0 <= measured["clean_accuracy"] <= 1
        assert 0 <= measured["attack_success_rate"] <= 1
        assert measured["num_clean"] == 30
    seconds = report["seconds"]
    assert isinstance(seconds, dict)
    assert set(seconds) == {"poison", "train", "detect", "retrain", "total"}
    assert report["seed"] == 0
    assert "settings" in report
    assert "d/report.html" in answer.out
    told = read_report(Path("d"))
    kinds = [part["type"] for part in told["sections"]]
    assert kinds[-2:] == ["card", "steps"]
    assert "gallery" in kinds
    assert Path("d/report.html").read_text() == render(told)


@pytest.mark.usefixtures("tiny")
def test_the_images_lie_there_for_the_other_verbs(bezoar: Call) -> None:
    first = bezoar("demo", "--out", "d", "--json", "--part", "digits").json
    again = bezoar("demo", "--out", "d", "--json", "--part", "digits").json
    assert {k: v for k, v in first.items() if k != "seconds"} == {
        k: v for k, v in again.items() if k != "seconds"
    }
    train, test, poisoned = (
        open_source(f"d/{name}").read()[0] for name in ("train", "test", "poisoned")
    )
    assert (len(train), len(test), len(poisoned)) == (67, 30, 67)
    keys = {*content_keys(train.images), *content_keys(test.images)}
    assert len(keys) == 97  # nothing is in both
    manifest = read_manifest(Path("d/poisoned.manifest.json"))
    assert {row.id for row in manifest.poisoned} <= set(poisoned.ids)
    answer = bezoar("demo", "--out", "d", "--seed", "1", "--part", "digits")
    assert answer.code == 2
    assert "other images" in answer.sentence


def test_pairs_get_a_page_with_their_captions(
    bezoar: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_pairs, "NUM_PAIRS", 256)
    monkeypatch.setattr(demo_pairs, "NUM_REFERENCE", 64)
    monkeypatch.setattr(demo_pairs, "NUM_TEST", 20)
    monkeypatch.setattr(demo_pairs, "REFERENCE_TRAINING", ClipTraining(epochs=1))
    monkeypatch.setattr(demo_pairs, "TRAINING", ClipTraining(epochs=1))
    answer = bezoar("demo", "--out", "d", "--part", "pairs")
    assert answer.code == 0, answer.err
    assert "The page: d/pairs/report.html" in answer.out
    told = read_report(Path("d/pairs"))
    (part,) = [p for p in told["sections"] if p["type"] == "gallery"]
    assert part["total"] == 256
    for caption in part["columns"]["caption"]:
        assert any(name in caption for name in DIGIT_NAMES)
    assert told["verdict"]["status"] in {"found", "nothing found"}


@pytest.mark.slow
@pytest.mark.example
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    src = Path(__file__).parent.parent.parent / "src"
    done = subprocess.run(
        [sys.executable, "-m", "bezoar", "demo", "--out", "demo"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = read_object(tmp_path / "demo" / "report.json")
    detection, before, after = (report[k] for k in ("detection", "before", "after"))
    assert isinstance(detection, dict)
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert detection["verdict"] == "found"
    assert detection["auroc"] >= 0.95
    assert before["attack_success_rate"] >= 0.9
    assert after["attack_success_rate"] <= 0.05
    assert after["clean_accuracy"] >= before["clean_accuracy"] - 0.02
    pairs = read_report(tmp_path / "demo" / "pairs")
    (card,) = [p for p in pairs["sections"] if p["type"] == "card"]
    success = next(r for r in card["rows"] if r["name"] == "attack success rate")
    assert pairs["verdict"]["status"] == "found"
    assert success["before"] >= 0.9
    assert success["after"] <= 0.1
