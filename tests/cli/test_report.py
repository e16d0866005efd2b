"""``bezoar report`` end to end, and decisions applied by ``bezoar detect``."""

import csv
import json
from pathlib import Path

import datasets
import pytest

from bezoar.data import open_source
from bezoar.report import read_report
from bezoar.storage import load_detection, read_object, read_table
from tests.cli.conftest import FAST, Call


@pytest.fixture
def run(bezoar: Call, photos: Path, model: Path) -> Path:
    """A run of ``bezoar detect``, with masks of two images."""
    answer = bezoar(
        *("detect", photos, "--model", model, "--out", "run", "--num-masks", "2"), *FAST
    )
    assert answer.code == 0, answer.err
    return Path("run")


def decisions(run: Path, **by_id: str) -> Path:
    found = read_report(run)
    path = Path("decisions.json")
    plain = {
        "format": "bezoar.decisions",
        "version": 1,
        "title": found["title"],
        "data": found["run"]["fingerprints"]["data"],
        "decisions": by_id,
    }
    path.write_text(json.dumps(plain))
    return path


def test_the_page_is_made_anew_from_the_report_alone(bezoar: Call, run: Path) -> None:
    before = (run / "report.html").read_text()
    for path in run.iterdir():
        if path.is_file() and path.name != "report.json":
            path.unlink()
    answer = bezoar("report", run)
    assert answer.code == 0
    assert answer.out == "wrote run/report.html\n"
    assert (run / "report.html").read_text() == before
    assert bezoar("report", run, "--json").json["written"] == "run/report.html"


def test_the_report_holds_thumbnails_masks_and_neighbours(run: Path) -> None:
    found = read_report(run)
    (part,) = [p for p in found["sections"] if p["type"] == "gallery"]
    assert len(part["thumbnails"]) == len(part["columns"]["id"]) == 24
    assert [d["row"] for d in part["details"] if "mask" in d] == [0, 1]
    assert all(len(d["neighbours"]) == 6 for d in part["details"])
    assert found["run"]["command"] == read_object(run / "run.json")["command"]


def test_decisions_go_before_what_was_flagged(
    bezoar: Call, run: Path, photos: Path, model: Path
) -> None:
    found = load_detection(run)
    worst = found.ids[int(found.ranks.argmin())]
    path = decisions(run, **{worst: "drop", found.ids[0]: "keep"})
    words = ("--model", model, "--out", run, "--num-masks", "2", *FAST)
    answer = bezoar("detect", photos, *words, "--decisions", path, "--clean", "clean")
    assert answer.code == 0, answer.err
    assert "decisions of a person were applied: 1 to drop, 1 to keep" in answer.out
    decided = load_detection(run)
    assert [decided.ids[i] for i in decided.flagged.nonzero().flatten()] == [worst]
    with (run / "removed.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [worst]
    kept = {record.id for record in open_source("clean").records()}
    assert kept == set(found.ids) - {worst}
    (part,) = [p for p in read_report(run)["sections"] if p["type"] == "gallery"]
    assert part["decisions"] == {worst: "drop", found.ids[0]: "keep"}
    again = bezoar("detect", photos, *words)  # without them all is as it was
    assert again.code == 0
    assert not load_detection(run).flagged.any()


def test_decisions_on_unknown_images_are_refused(
    bezoar: Call, run: Path, photos: Path, model: Path
) -> None:
    path = decisions(run, **{"other.png": "drop"})
    answer = bezoar(
        *("detect", photos, "--model", model, "--out", run, "--num-masks", "2"),
        *("--decisions", path, *FAST),
    )
    assert answer.code == 2
    assert "'other.png' and 0 more that are not in it" in answer.sentence


@pytest.mark.parametrize("name", ["sarif", "fiftyone", "cleanlab", "huggingface"])
def test_a_run_is_exported(bezoar: Call, run: Path, name: str) -> None:
    answer = bezoar("report", run, "--export", name, "--root", "photos")
    assert answer.code == 0, answer.err
    path = Path(answer.out.removeprefix("wrote ").strip())
    ids = list(load_detection(run).ids)
    if name == "sarif":
        (log,) = json.loads(path.read_text())["runs"]
        assert log["invocations"][0]["commandLine"].startswith("bezoar detect")
    elif name == "fiftyone":
        told = json.loads(path.read_text())
        assert told["name"] == "run"
        assert [s["filepath"] for s in told["samples"]] == [f"photos/{i}" for i in ids]
    elif name == "cleanlab":
        assert read_table(path).columns["id"] == ids
    else:
        told = datasets.Dataset.from_parquet(str(path), cache_dir="cache")
        assert told["id"][:] == ids


def test_a_folder_that_is_no_run_is_refused(bezoar: Call) -> None:
    Path("empty").mkdir()
    answer = bezoar("report", "empty")
    assert answer.code == 2
    assert "report.json" in answer.sentence
