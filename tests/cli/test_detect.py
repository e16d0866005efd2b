"""``bezoar detect`` end to end, on images of a few pixels."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bezoar.cli import detect as module
from bezoar.cli.sets import check_room
from bezoar.data import (
    ImageData,
    content_keys,
    noise_images,
    open_source,
    write_images,
)
from bezoar.errors import InputError
from bezoar.storage import load_detection, read_object
from tests.cli.conftest import FAST, Call

ROOT = Path(__file__).parent.parent.parent
SRC = ROOT / "src"


def scores(data: Path, run: Path) -> dict[str, float]:
    """Scores by content: ids differ between formats."""
    images, _ = open_source(data).read()
    by_id = dict(zip(images.ids, content_keys(images.images), strict=True))
    found = load_detection(run)
    rows = zip(found.ids, found.scores.tolist(), strict=True)
    return {by_id[name]: score for name, score in rows}


def test_a_folder_is_ranked_and_everything_is_written(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--out", "run", *FAST)
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith("Images are ranked; no verdict was made")
    assert "24 scored, 0 unreadable" in answer.out
    names = {path.name for path in Path("run").iterdir() if path.name[0] != "."}
    assert names == {
        "blocks",
        "prepared.json",
        "removed.csv",
        "report.json",
        "run.json",
        "scores.parquet",
        "unreadable.csv",
    }
    found = load_detection(Path("run"))
    top = found.ids[int(found.ranks.argmin())]
    first = next(line for line in answer.out.splitlines() if line.startswith("1 "))
    assert top in first
    told = read_object(Path("run/run.json"))
    assert told["status"] == "done"
    assert told["command"] == f"bezoar detect {photos} --model {model} --out run " + (
        " ".join(FAST)
    )
    assert told["settings"] == {
        "method": "cognitive-distillation",
        **found.provenance.settings,
        "betas": [0.1, 0.1],
    }


def test_json_is_one_object_and_nothing_else(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--json", *FAST)
    found = answer.json
    stored = read_object(Path("bezoar-run/report.json"))
    assert {key: found[key] for key in stored} == stored
    assert found["num_images"] == 24
    top = found["top"]
    assert isinstance(top, list)
    assert len(top) == 10
    assert [row["score"] for row in top] == sorted(
        (row["score"] for row in top), reverse=True
    )


def test_formats_give_equal_scores(
    bezoar: Call, data: ImageData, model: Path, tmp_path: Path
) -> None:
    write_images(data, tmp_path / "folder", format="class_folders")
    write_images(data, tmp_path / "table.parquet", format="parquet")
    write_images(data, tmp_path / "tars", format="webdataset")
    found = []
    for name in ("folder", "table.parquet", "tars"):
        run = Path(f"run-{name}")
        place = tmp_path / name
        assert bezoar("detect", place, "--model", model, "--out", run, *FAST).code == 0
        found.append(scores(place, run))
    assert len(found[0]) == len(data)
    assert found[0] == found[1] == found[2]


def test_batch_sizes_give_equal_scores(bezoar: Call, photos: Path, model: Path) -> None:
    for size in ("1", "64"):
        call = ("detect", photos, "--model", model, "--out", f"run{size}")
        assert bezoar(*call, "--batch-size", size, *FAST).code == 0
    one, many = (Path(f"run{size}/scores.parquet").read_bytes() for size in (1, 64))
    assert one == many


def test_without_a_model_one_is_trained_kept_and_found_again(
    bezoar: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ("--arch", "convnet", "--width", "4", "--epochs", "1")
    call = ("detect", photos, "--out", "run", *network, *FAST)
    first = bezoar(*call)
    assert first.code == 0
    assert "convnet of width 4, trained on the set for 1 epochs" in first.out
    assert Path("run/model.json").exists()
    weights = Path("run/model.safetensors").read_bytes()
    table = Path("run/scores.parquet").read_bytes()
    monkeypatch.setattr("bezoar.cli.victim.train_classifier", None)  # not called again
    assert bezoar(*call).out == first.out
    assert Path("run/model.safetensors").read_bytes() == weights
    assert Path("run/scores.parquet").read_bytes() == table
    with_it = ("--model", "run/model.safetensors", "--out", "given")
    assert bezoar("detect", photos, *with_it, *FAST).code == 0
    assert Path("given/scores.parquet").read_bytes() == table


def test_other_settings_do_not_mix_with_a_run(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("detect", photos, "--model", model)
    assert bezoar(*call, *FAST).code == 0
    before = Path("bezoar-run/scores.parquet").read_bytes()
    answer = bezoar(*call, *FAST, "--tv-weight", "5")
    assert answer.code == 2
    assert "choose another --out" in answer.sentence
    shutil.copy(next((photos / "odd").rglob("*.png")), photos / "even" / "new.png")
    assert bezoar(*call, *FAST).code == 2
    assert Path("bezoar-run/scores.parquet").read_bytes() == before


def test_a_run_that_failed_before_any_result_is_in_nobodys_way(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("detect", photos, "--model", model, "--out", "run")
    assert bezoar(*call, "--match", "features", "--layer", "no", *FAST).code == 2
    assert read_object(Path("run/run.json"))["status"] == "failed"
    assert bezoar(*call, *FAST).code == 0
    assert read_object(Path("run/run.json"))["status"] == "done"


def test_results_of_unknown_origin_are_kept(
    bezoar: Call, photos: Path, model: Path
) -> None:
    Path("run").mkdir()
    shutil.copy(model, "run/model.safetensors")
    answer = bezoar("detect", photos, "--out", "run", *FAST)
    assert answer.code == 2
    assert "model.safetensors" in answer.sentence


def test_what_is_flagged_is_left_out_of_the_clean_set(
    bezoar: Call, photos: Path, model: Path
) -> None:
    review = ("--threshold", "review", "--review-rate", "0.25")
    call = ("detect", photos, "--model", model, *FAST)
    answer = bezoar(*call, *review, "--clean", "clean", "--out", "a", "--json")
    assert answer.code == 0  # a list to look through is no claim
    assert answer.json["num_written"] == 18
    found = load_detection(Path("a"))
    flagged = {found.ids[i] for i in found.flagged.nonzero().flatten().tolist()}
    left = {str(p.relative_to("clean")) for p in Path("clean").rglob("*.png")}
    assert left == set(found.ids) - flagged
    with Path("a/removed.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == flagged
    assert sorted(p.name for p in Path("clean").iterdir()) == ["even", "odd"]
    again = bezoar(*call, *review, "--clean", "clean", "--out", "b")
    assert again.code == 2
    assert "something is already" in again.sentence


def test_nothing_is_written_when_nothing_is_flagged(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--clean", "clean", *FAST)
    assert answer.code == 0
    assert "nothing was removed, so clean was not written" in answer.out
    assert not Path("clean").exists()


def test_poison_is_exit_code_1(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, "--threshold", "sigmas", *FAST)
    answer = bezoar(*call, "--sigmas", "0.1")
    assert answer.code == 1
    assert "verdict" in answer.out
    assert "found (rule: sigmas)" in answer.out
    assert load_detection(Path("bezoar-run")).flagged.any()


def test_scores_without_meaning_are_an_error_that_says_what_to_try(
    bezoar: Call, photos: Path, model: Path
) -> None:
    heavy = ("--steps", "60", "--lr", "1", "--l1-weight", "1000")
    answer = bezoar("detect", photos, "--model", model, *heavy)
    assert answer.code == 2
    assert "not scoreable" in answer.out
    assert "lower l1_weight" in answer.err
    assert Path("bezoar-run/report.json").exists()


def test_a_reference_is_compared_with(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, *FAST)
    assert bezoar(*call, "--out", "clean-run").code == 0
    answer = bezoar(*call, "--reference", "clean-run", "--out", "run", "--json")
    verdict = answer.json["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["rule"] == "reference"
    assert verdict["status"] == "nothing found"  # they are the same images
    assert answer.code == 0
    assert "nowhere" in bezoar(*call, "--reference", "nowhere").sentence


def test_masks_are_kept_when_asked_for(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, "--num-masks", "3", *FAST)
    assert bezoar(*call).code == 0
    found = load_detection(Path("bezoar-run"))
    assert found.masks is not None
    assert found.masks.shape == (3, 8, 8)
    top = found.ranks.argsort()[:3].tolist()
    assert found.mask_ids == tuple(found.ids[i] for i in top)
    share = found.masks.float().mean((1, 2)) / 255
    assert torch.allclose(share, found.columns["mask_share"][top], atol=1 / 255)


def test_images_without_labels_need_a_model(
    bezoar: Call, photos: Path, model: Path
) -> None:
    flat = Path("flat")
    flat.mkdir()
    for i, path in enumerate(photos.rglob("*.png")):
        shutil.copy(path, flat / f"{i}.png")
    answer = bezoar("detect", flat, *FAST)
    assert answer.code == 2
    assert "labels" in answer.sentence
    answer = bezoar("detect", flat, "--model", model, *FAST)
    assert answer.code == 0
    assert "own predictions took their place" in answer.out


def test_presets_and_options_go_together(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("detect", photos, "--model", model, *FAST)
    for out, named in (("a", ()), ("b", ("cognitive-distillation",))):
        words = (*call[:2], *named, *call[2:], "--preset", "official-code")
        assert bezoar(*words, "--threshold", "none", "--out", out).code == 0
        settings = load_detection(Path(out)).provenance.settings
        official = module.DETECTORS["cognitive-distillation"].official_code()  # type: ignore[attr-defined]
        assert settings["tv_weight"] == official.tv_weight
        assert (settings["steps"], settings["threshold"]) == (2, "none")
    assert bezoar(*call, "--preset", "fast").code == 2


def test_a_model_in_another_order_of_classes_is_refused(
    bezoar: Call, model: Path, tmp_path: Path
) -> None:
    turned = ImageData(
        images=noise_images(4).images,
        labels=torch.tensor([0, 1, 0, 1]),
        ids=("a", "b", "c", "d"),
        class_names=("odd", "even"),
    )
    write_images(turned, tmp_path / "t.parquet", format="parquet")
    answer = bezoar("detect", "t.parquet", "--model", model, *FAST)
    assert answer.code == 2
    assert "order even, odd" in answer.sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "MODEL", "--arch", "resnet18"), "leave out --model"),
        (("--model", "MODEL", "--epochs", "3"), "leave out --model"),
        (("--device", "cuda:99"), "such as cpu"),
        (("--device", "abacus"), "such as cpu"),
        (("--image-size", "0"), "positive --image-size"),
        (("--batch-size", "0"), "positive sizes"),
        (("--out", "photos/run"), "outside the set"),
        (("--clean", "photos/clean"), "outside the set"),
        (("--clean", "photos"), "outside the set"),
    ],
)
def test_calls_without_sense_are_refused(
    bezoar: Call, photos: Path, model: Path, words: tuple[str, ...], told: str
) -> None:
    given = [str(model) if word == "MODEL" else word for word in words]
    answer = bezoar("detect", "photos", *given)
    assert answer.code == 2
    assert told in answer.sentence
    assert sorted(p.name for p in photos.iterdir()) == ["even", "odd"]


def test_settings_that_a_method_refuses_are_an_error_of_usage(
    bezoar: Call, photos: Path
) -> None:
    answer = bezoar("detect", photos, "--steps", "0")
    assert answer.code == 2
    assert "expected steps and mask_scale of at least 1" in answer.err
    assert "Traceback" not in answer.err


def test_sets_beyond_the_memory_are_refused() -> None:
    check_room(1000, (32, 32))
    with pytest.raises(InputError, match="fits into memory, got 100,000,000 images"):
        check_room(100_000_000, (224, 224))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_table(model: Path, tmp_path: Path) -> None:
    write_images(noise_images(192), tmp_path / "photos", format="class_folders")
    call = [sys.executable, "-m", "bezoar", "detect", "photos", "--model", str(model)]
    call += ["--steps", "30", "--block-size", "64", "--l1-weight", "0.0001", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    whole = subprocess.run(
        [*call, "whole"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.Popen([*call, "killed"], cwd=tmp_path, env=environment)
    blocks = tmp_path / "killed" / "blocks"
    while len(list(blocks.glob("0*.parquet"))) < 1:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "scores.parquet").exists()
    finished = len(list(blocks.glob("0*.parquet")))
    assert finished < 3
    oldest = (blocks / "00000000.parquet").stat().st_mtime_ns
    again = subprocess.run(
        [*call, "killed"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert (blocks / "00000000.parquet").stat().st_mtime_ns == oldest
    tables = [
        (tmp_path / run / "scores.parquet").read_bytes() for run in ("whole", "killed")
    ]
    assert tables[0] == tables[1]
