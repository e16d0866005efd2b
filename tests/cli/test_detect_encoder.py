"""``bezoar detect DATA --encoder ENCODER``: a verdict on an encoder, and its limits."""

from pathlib import Path

import pytest

from bezoar.data import noise_images, write_images
from bezoar.models import save_encoder, simclr
from bezoar.storage import read_object
from tests.cli.conftest import Call

QUICK = ("--steps=20", "--num-restarts=2", "--batch-size=8", "--cosine-target=0.93")


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Images without labels."""
    images = noise_images(24, size=16)
    write_images(images, tmp_path / "shown", format="class_folders")
    return tmp_path / "shown"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    save_encoder(simclr("tiny", seed=3), tmp_path / "encoder")
    return tmp_path / "encoder"


def test_the_verdict_its_limits_and_the_exit_code(
    bezoar: Call, shown: Path, encoder: Path
) -> None:
    call = ("detect", shown, "--encoder", encoder, *QUICK)
    below = bezoar(*call, "--threshold", "0.0001")
    assert below.code == 0, below.err
    assert "nothing found" in below.out
    assert "spread over the whole image" in below.out
    assert "the threshold was set on small encoders" in below.out
    above = bezoar(*call, "--threshold", "0.9999", "--json", "--out", "run")
    assert above.code == 1, above.err
    told = above.json
    assert told["status"] == "found"
    assert isinstance(told["area"], float)
    assert 0 < told["area"] < 0.9999
    assert read_object(Path("run/diagnosis.json"))["area"] == told["area"]
    assert read_object(Path("run/run.json"))["status"] == "done"
    assert Path("run/mask.png").read_bytes()[1:4] == b"PNG"


def test_clean_encoders_set_the_threshold(
    bezoar: Call, shown: Path, encoder: Path, tmp_path: Path
) -> None:
    for seed in (4, 5):
        save_encoder(simclr("tiny", seed=seed), tmp_path / f"clean{seed}")
    beside = [f"--clean-encoder={tmp_path / f'clean{seed}'}" for seed in (4, 5)]
    call = ("detect", shown, "encoder-inversion", "--encoder", encoder)
    answer = bezoar(*call, *beside, *QUICK, "--json")
    told = answer.json
    areas = told["reference_areas"]
    assert isinstance(areas, list)
    assert len(areas) == 2
    assert told["threshold"] == pytest.approx(0.7 * min(areas))
    assert told["p_value"] in (1 / 3, 2 / 3, 1.0)


def test_what_is_no_encoder_and_a_taken_place_are_told(
    bezoar: Call, shown: Path, encoder: Path
) -> None:
    answer = bezoar("detect", shown, "--encoder", "no/such/folder/here")
    assert answer.code == 2
    assert "expected an encoder" in answer.sentence
    Path("run").mkdir()
    Path("run/mine").write_text("kept")
    answer = bezoar("detect", shown, "--encoder", encoder, "--out", "run")
    assert answer.code == 2
    assert "a new place for --out" in answer.sentence
