"""``bezoar repair`` on image-text models: pairs in, a model of the same format out."""

from pathlib import Path

import pytest

from bezoar.data import shape_pairs, write_pairs
from bezoar.data.write_images import write_images
from bezoar.models import (
    TinyClip,
    TransformersClip,
    WordTokenizer,
    fingerprint,
    load_dual_encoder,
    save_dual_encoder,
)
from bezoar.storage import load_repair, read_object
from tests.cli.conftest import Call
from tests.models.test_clip_files import hub_clip

QUICK = ("--min-suspicious", "64", "--overfit-steps", "2", "--steps", "2")
DATA = shape_pairs(160)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_pairs(DATA, tmp_path / "pairs")
    return tmp_path / "pairs"


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """A suspect model and a reference."""
    words = WordTokenizer.from_captions([*DATA.captions, "photo of"])
    for name, seed in (("suspect", 0), ("base", 1)):
        model = TinyClip(words, resolution=24, seed=seed)
        save_dual_encoder(model, tmp_path / name)
    return tmp_path / "suspect", tmp_path / "base"


def test_nothing_found_leaves_the_model_as_it_was(
    bezoar: Call, pairs: Path, clips: tuple[Path, Path]
) -> None:
    write_images(DATA.image_data, Path("test"), format="class_folders")
    suspect, base = clips
    call = ("repair", suspect, "ubt", "--data", pairs, "--reference", base, *QUICK)
    answer = bezoar(*call, "--out", "fixed", "--test", "test")
    assert answer.code == 0, answer.err
    assert "nothing found" in answer.out
    assert "clean accuracy" in answer.out
    was = load_dual_encoder(str(suspect))
    assert fingerprint(load_dual_encoder("fixed")) == fingerprint(was)
    assert fingerprint(load_repair(Path("fixed")).model) == fingerprint(was)
    told = read_object(Path("fixed/run.json"))
    assert told["status"] == "done"
    assert Path("fixed/report.html").exists()


@pytest.mark.slow
def test_what_was_isolated_is_forgotten_and_the_format_stays(
    bezoar: Call, pairs: Path, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    hub_clip(tmp_path / "hub", max_position_embeddings=40)
    call = ("repair", "hub", "ubt", "--data", pairs, "--reference", clips[1], *QUICK)
    answer = bezoar(
        *call,
        "--no-word-filter",
        "--steps",
        "20",
        "--lr",
        "0.001",
        "--forget-weight",
        "30",
        "--out",
        "fixed",
        "--json",
    )
    assert answer.code == 0, answer.err
    assert answer.json["status"] == "repaired", answer.out
    fixed, was = load_dual_encoder("fixed"), load_dual_encoder("hub")
    assert isinstance(fixed, TransformersClip)
    changed = {
        n
        for (n, p), q in zip(fixed.named_parameters(), was.parameters(), strict=True)
        if not p.equal(q)
    }
    assert changed, answer.out
    assert all(n.startswith(("model.vision_model", "model.visual_p")) for n in changed)


def test_options_of_pairs_are_refused_for_images(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("repair", model, "retraining", "--data", photos, "--detection", "none")
    answer = bezoar(*call, "--out", "fixed", "--reference", "base")
    assert answer.code == 2
    assert "expected no --reference" in answer.sentence


def test_a_set_without_captions_and_a_bad_template_are_told(
    bezoar: Call, photos: Path, pairs: Path, clips: tuple[Path, Path]
) -> None:
    suspect, base = clips
    call = ("repair", suspect, "ubt", "--reference", base, *QUICK, "--out", "fixed")
    answer = bezoar(*call, "--data", photos)
    assert answer.code == 2
    assert "images with captions" in answer.sentence
    answer = bezoar(*call, "--data", pairs, "--template", "a photo")
    assert answer.code == 2
    assert "--template with one {}" in answer.sentence
