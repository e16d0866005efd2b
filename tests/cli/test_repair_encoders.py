"""``bezoar repair`` on encoders: clean images in, an encoder of the same format out."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTModel

from bezoar.data import noise_images, write_images
from bezoar.models import (
    SimCLR,
    fingerprint,
    load_encoder,
    save_encoder,
    simclr,
    unit_vectors,
)
from bezoar.storage import load_repair, read_object
from bezoar.train import distillation
from tests.cli.conftest import Call

SHORT = {
    "mimic": ("--epochs", "1", "--information-epochs", "1"),
    "distillation": ("--epochs", "1"),
    "encoder-fine-tuning": ("--epochs", "1"),
    "lipschitz-pruning": ("--threshold", "1"),
    "bcu": ("--epochs", "1"),
}
SEEN = noise_images(4, size=16).images


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write_images(noise_images(144, size=16), tmp_path / "clean", format="class_folders")
    return tmp_path / "clean"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    save_encoder(simclr("tiny", seed=3), tmp_path / "encoder")
    return tmp_path / "encoder"


def hub_vit(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=16,
            patch_size=4,
        )
        ViTModel(config).save_pretrained(folder)
    told = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", SHORT)
def test_an_encoder_of_ours_is_repaired_in_its_format(
    bezoar: Call, clean: Path, encoder: Path, method: str
) -> None:
    call = ("repair", encoder, method, "--data", clean, *SHORT[method])
    answer = bezoar(*call, "--out", "fixed", "--json")
    assert answer.code == 0, answer.err
    was, fixed = load_encoder(str(encoder)), load_encoder("fixed")
    assert isinstance(fixed, SimCLR)
    assert fingerprint(fixed) != fingerprint(was)
    assert fingerprint(load_repair(Path("fixed")).model) == fingerprint(fixed)
    told = answer.json
    assert told["num_images"]["held out"] == 14  # type: ignore[index]
    figures = told["figures"]
    assert isinstance(figures, dict)
    shown = load_repair(Path("fixed")).image_ids["held out"]
    assert len(set(shown)) == 14
    assert -1 <= figures["held_out_cosine"] < 0.99999
    if method != "lipschitz-pruning":
        assert told["history"][-1]["loss"] is not None  # type: ignore[index]
    assert not Path(".fixed.repair").exists()
    assert read_object(Path("fixed/run.json"))["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mimic", "bcu"])
def test_a_transformer_comes_back_as_transformers_keeps_it(
    bezoar: Call, clean: Path, tmp_path: Path, method: str
) -> None:
    place = hub_vit(tmp_path / "vit")
    call = ("repair", place, method, "--data", clean, *SHORT[method], "--out", "fixed")
    answer = bezoar(*call)
    assert answer.code == 0, answer.err
    assert "held out cosine" in answer.out
    assert "loss" in answer.out
    was, fixed = load_encoder(str(place)), load_encoder("fixed")
    assert (Path("fixed") / "config.json").exists()
    assert unit_vectors(fixed, SEEN).shape == unit_vectors(was, SEEN).shape
    assert fingerprint(fixed) != fingerprint(was)
    assert fingerprint(load_repair(Path("fixed")).model) == fingerprint(fixed)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_encoder(
    bezoar: Call, clean: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("repair", encoder, "distillation", "--data", clean, "--epochs", "3")
    assert bezoar(*call, "--out", "straight").code == 0
    epochs: list[int] = []
    run = distillation._Run
    whole = run.epoch

    def counted(self: object, *args: Any, epoch: int, **more: Any) -> Any:
        if epoch == 2 and 2 not in epochs:
            epochs.append(2)
            raise KeyboardInterrupt
        epochs.append(epoch)
        return whole(self, *args, epoch=epoch, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "epoch", counted)
    with contextlib.suppress(KeyboardInterrupt):
        bezoar(*call, "--out", "fixed")
    assert list(Path(".fixed.repair").glob("distil*"))
    answer = bezoar(*call, "--out", "fixed")
    assert answer.code == 0, answer.err
    assert epochs[-1] == 2
    assert epochs.count(0) == 1, "what was done is not done again"
    assert fingerprint(load_encoder("fixed")) == fingerprint(load_encoder("straight"))


def test_few_images_without_labels_are_enough_and_the_cosine_says_on_what(
    bezoar: Call, encoder: Path, tmp_path: Path
) -> None:
    write_images(noise_images(40, size=16), tmp_path / "all", format="class_folders")
    flat = tmp_path / "flat"
    flat.mkdir()
    for place, path in enumerate(sorted((tmp_path / "all").rglob("*.png"))):
        path.rename(flat / f"{place}.png")
    call = ("repair", encoder, "lipschitz-pruning", "--data", flat, "--out")
    answer = bezoar(*call, "unchanged", "--threshold", "90")
    assert answer.code == 0, answer.err
    assert "nothing found" in answer.out
    assert re.search(r"^cosine +1\.0000$", answer.out, re.MULTILINE), answer.out
    assert "on the images it learnt from" in answer.out
    told = bezoar(*call, "tested", "--threshold", "1", "--test", flat, "--json").json
    figures = told["figures"]
    assert isinstance(figures, dict)
    assert figures["held_out_cosine"] < 0.99999
    refused = bezoar(*call, "no", "--test", flat, "--attack", "manifest.json")
    assert refused.code == 2
    assert "no --attack for an encoder" in refused.sentence


def test_a_classifier_is_no_encoder(bezoar: Call, photos: Path, model: Path) -> None:
    answer = bezoar("repair", model, "mimic", "--data", photos, "--out", "fixed")
    assert answer.code == 2
    assert "expected an encoder" in answer.sentence
