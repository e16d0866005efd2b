"""``bezoar guard``: the chain from the command line."""

import json
from pathlib import Path

import pytest

from bezoar.data import noise_images, write_images
from bezoar.guarding import STEPS
from bezoar.report import read_report
from bezoar.storage import read_object
from tests.cli.conftest import Call

QUICK = ("--detector", "ss", "--epochs", "1", "--width", "4", "--skip", "screen")


def decide(place: Path, run: Path, **choices: str) -> Path:
    """Write what the page saves."""
    facts = read_object(run / "run.json")["fingerprints"]
    assert isinstance(facts, dict)
    ids = {name.replace("_", "/") + ".png": word for name, word in choices.items()}
    told = {"format": "bezoar.decisions", "version": 1, "title": "guard"}
    place.write_text(json.dumps({**told, "data": facts["data"], "decisions": ids}))
    return place


def test_it_tells_every_step_and_writes_a_page(bezoar: Call, photos: Path) -> None:
    answer = bezoar("guard", photos, "--out", "run", *QUICK)
    assert answer.code in (0, 1), answer.err
    for step in STEPS:
        assert f"\n{step} " in answer.out
    assert "report.html" in answer.out
    assert "on request" in answer.out
    report = read_report(Path("run"))
    assert report["run"]["command"].startswith("bezoar guard ")
    again = bezoar("guard", photos, "--out", "run", *QUICK, "--json").json
    assert again["exit_code"] == answer.code
    steps = again["steps"]
    assert isinstance(steps, list)
    assert {s["name"]: s["status"] for s in steps}["learn"] == "restored"


def test_decisions_of_the_page_are_followed(bezoar: Call, photos: Path) -> None:
    call = ("guard", photos, "--out", "run", *QUICK, "--flagged", "keep")
    first = bezoar(*call)
    assert first.code in (0, 1), first.err
    assert not Path("run/clean").exists()
    names = sorted(p.relative_to(photos) for p in photos.rglob("*.png"))
    gone = names[0]
    words = {str(gone.with_suffix("")).replace("/", "_", 1): "drop"}
    file = decide(Path("decisions.json"), Path("run"), **words)
    answer = bezoar(*call, "--decisions", file)
    assert answer.code == first.code, answer.err
    kept = sorted(p.relative_to("run/clean") for p in Path("run/clean").rglob("*.png"))
    assert kept == names[1:]


def test_a_given_model_is_looked_at(bezoar: Call, photos: Path, model: Path) -> None:
    was = model.read_bytes()
    call = ("guard", photos, "--model", model, "--detector", "ss")
    answer = bezoar(*call, "--skip", "screen,repair", "--out", "run", "--json")
    assert answer.code in (0, 1), answer.err
    assert model.read_bytes() == was
    told = read_report(Path("run"))["sections"]
    assert any(str(model) in item for s in told for item in s.get("items", ()))


def test_what_makes_no_sense_is_refused_in_one_sentence(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("guard", photos, "--out", "x")
    assert "expected steps" in bezoar(*call, "--skip", "purfy").sentence
    assert "--detector" in bezoar(*call, "--detector", "cdd").sentence
    assert "--purifier" in bezoar(*call, "--purifier", "jpg").sentence
    assert "--method" in bezoar(*call, "--method", "forget").sentence
    assert "beside --model" in bezoar(*call, "--model", model, "--epochs", "1").sentence
    assert "beside the attack" in bezoar(*call, "--attack", "m.json").sentence
    write_images(noise_images(4), Path("other"), format="class_folders")
    Path("other/even/note.txt").write_text("x")
    assert "something else" in bezoar("guard", photos, "--out", "other").sentence
    assert not Path("x").exists()


@pytest.mark.parametrize("content", [None, "no image"])
def test_nothing_to_scan_is_three(bezoar: Call, content: str | None) -> None:
    Path("none/a").mkdir(parents=True)
    if content:
        Path("none/a/x.png").write_text(content)
    answer = bezoar("guard", "none", "--out", "run")
    assert answer.code == 3, answer.err
    assert "expected" in answer.err


def test_nothing_judged_is_an_error(bezoar: Call) -> None:
    write_images(noise_images(6), Path("one"), format="parquet")
    answer = bezoar("guard", "one", "--out", "run", "--skip", "screen,learn")
    assert answer.code == 2
    assert "Nothing was judged" in answer.out
    assert Path("run/report.html").exists()
