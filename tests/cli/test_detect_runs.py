"""Scores do not depend on format or batch size, and a run is whole or goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bezoar.data import (
    ImageData,
    content_keys,
    noise_images,
    open_source,
    write_images,
)
from bezoar.storage import load_detection, read_object
from tests.cli.conftest import FAST, Call

SRC = Path(__file__).parent.parent.parent / "src"


def scores(data: Path, run: Path) -> dict[str, float]:
    """Scores by content: ids differ between formats."""
    images, _ = open_source(data).read()
    by_id = dict(zip(images.ids, content_keys(images.images), strict=True))
    found = load_detection(run)
    rows = zip(found.ids, found.scores.tolist(), strict=True)
    return {by_id[name]: score for name, score in rows}


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
