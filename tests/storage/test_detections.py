import csv
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from bezoar.data import Unreadable
from bezoar.errors import InputError, StorageError
from bezoar.results import ClassEvidence, Detection, Provenance, Verdict
from bezoar.storage import load_detection, read_object, read_table, save_detection

EVIDENCE = ClassEvidence(
    label=1, num_images=2, median=0.1, excess=1 / 3, z=8.5, num_flagged=2
)


def detection() -> Detection:
    return Detection(
        ids=("cat/1.png", "train.parquet#12", "=cmd|' /c calc'!A0", "dog/ü,1.png"),
        labels=torch.tensor([0, 1, 1, 0]),
        class_names=("cat", "dög"),
        scores=torch.tensor([0.25, 0.5, 0.75, 0.5]),
        p_values=torch.tensor([0.5, 0.01, 0.001, 0.9]),
        flagged=torch.tensor([False, True, True, False]),
        reasons=("", "small mask", '-1 "quoted", line\nbreak', ""),
        columns={"mask_norm": torch.tensor([7.0, 5.0, 3.0, 5.0]) / 3},
        verdict=Verdict(
            status="found",
            rule="class_scan",
            summary="Two images look planted.",
            num_flagged=2,
            expected_false_alarms=0.2,
            poison_rate=0.5,
            poison_rate_interval=(0.1, 0.9),
            target_class=1,
            classes=(EVIDENCE, replace(EVIDENCE, label=0)),
            health=("collapsing",),
            threshold=None,
        ),
        provenance=Provenance(
            method="cd",
            settings={"lr": 0.1, "betas": (0.1, 0.1), "layer": None, "n": {"a": 1}},
            seed=3,
            seconds=1.5,
            forwards_per_image=201.0,
        ),
        masks=torch.arange(2 * 3 * 4, dtype=torch.uint8).view(2, 3, 4),
        mask_ids=("train.parquet#12", "cat/1.png"),
    )


def assert_same(first: Detection, second: Detection) -> None:
    for field in fields(Detection):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert a.equal(b), field.name
        elif field.name == "columns":
            assert a.keys() == b.keys()
            assert all(a[k].equal(b[k]) for k in a)
        else:
            assert a == b, field.name


def test_a_detection_comes_back_exactly(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path / "run")
    assert_same(detection(), load_detection(tmp_path / "run"))


def test_a_bare_detection_comes_back_and_clears_old_masks(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path)
    verdict = Verdict(
        status="ranking",
        rule="none",
        summary="",
        num_flagged=0,
        expected_false_alarms=float("nan"),
    )
    bare = replace(
        detection(), p_values=None, masks=None, mask_ids=(), verdict=verdict, columns={}
    )
    save_detection(bare, tmp_path)
    found = load_detection(tmp_path)
    assert not (tmp_path / "masks.safetensors").exists()
    assert found.verdict.expected_false_alarms != found.verdict.expected_false_alarms
    assert_same(replace(bare, verdict=found.verdict), found)
    assert {**asdict(found.verdict), "expected_false_alarms": 0} == {
        **asdict(verdict),
        "expected_false_alarms": 0,
    }


def test_the_table_has_the_columns_of_a_run_in_order(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path)
    columns = read_table(tmp_path / "scores.parquet").columns
    assert list(columns) == [
        *("id", "path", "label", "score", "rank", "p_value", "flagged", "reason"),
        "mask_norm",
    ]
    assert columns["path"] == [
        *("cat/1.png", "train.parquet", "=cmd|' /c calc'!A0", "dog/ü,1.png")
    ]
    rank = columns["rank"]
    assert isinstance(rank, torch.Tensor)
    assert rank.tolist() == [4, 2, 1, 3]


def test_the_path_is_the_file_that_an_image_is_in(tmp_path: Path) -> None:
    names = {
        "a#1.png": "a#1.png",
        "s/x.tar#12": "s/x.tar",
        "x.tar#cat#1/a.tar#2": "x.tar",
        "train#3": "train",
    }
    save_detection(replace(detection(), ids=tuple(names)), tmp_path)
    columns = read_table(tmp_path / "scores.parquet").columns
    assert columns["path"] == list(names.values())


def test_equal_detections_give_equal_tables(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_detection(detection(), tmp_path / name)
    for file in ("scores.parquet", "masks.safetensors", "report.json", "removed.csv"):
        first, second = ((tmp_path / n / file).read_bytes() for n in ("a", "b"))
        assert first == second


def test_removed_images_are_listed_worst_first_and_harmless(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path)
    with (tmp_path / "removed.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "score", "reason"],
        ["'=cmd|' /c calc'!A0", "0.75", '\'-1 "quoted", line\nbreak'],
        ["train.parquet#12", "0.5", "small mask"],
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_unreadable_images_are_listed_and_harmless(start: str, tmp_path: Path) -> None:
    bad = [
        Unreadable(id=f"{start}1+1", reason="not an image"),
        Unreadable(id="b=", reason=""),
    ]
    save_detection(detection(), tmp_path, unreadable=bad)
    with (tmp_path / "unreadable.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["id", "reason"], [f"'{start}1+1", "not an image"], ["b=", ""]]
    assert read_object(tmp_path / "report.json")["num_unreadable"] == 2


def test_a_negative_score_stays_a_number(tmp_path: Path) -> None:
    save_detection(replace(detection(), scores=-detection().scores), tmp_path)
    rows = (tmp_path / "removed.csv").read_text().splitlines()
    assert rows[1] == "train.parquet#12,-0.5,small mask"


def test_more_facts_stand_in_the_report_under_their_own_keys(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path, extra={"data": {"path": tmp_path}})
    assert read_object(tmp_path / "report.json")["data"] == {"path": str(tmp_path)}
    with pytest.raises(InputError, match=r"than \['verdict'\]; rename"):
        save_detection(detection(), tmp_path, extra={"verdict": 1})


def test_raw_columns_must_not_hide_common_ones(tmp_path: Path) -> None:
    hidden = replace(detection(), columns={"score": torch.zeros(4)})
    with pytest.raises(InputError, match=r"got \['score'\]; rename them"):
        save_detection(hidden, tmp_path)


def test_table_and_report_of_two_runs_are_refused(tmp_path: Path) -> None:
    save_detection(detection(), tmp_path / "a")
    save_detection(replace(detection(), scores=torch.ones(4)), tmp_path / "b")
    (tmp_path / "a" / "scores.parquet").rename(tmp_path / "b" / "scores.parquet")
    with pytest.raises(StorageError, match="do not belong together; run"):
        load_detection(tmp_path / "b")


def test_missing_and_damaged_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"report\.json.*No such file"):
        load_detection(tmp_path)
    save_detection(detection(), tmp_path)
    (tmp_path / "masks.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(StorageError, match=r"masks.*got damage"):
        load_detection(tmp_path)
    save_detection(detection(), tmp_path)
    report = read_object(tmp_path / "report.json")
    report["verdict"] = {"status": "found"}
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(StorageError, match="expected a detection of format 1"):
        load_detection(tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        save_detection(detection(), tmp_path / "file" / "run")
