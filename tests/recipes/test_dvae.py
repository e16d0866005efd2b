"""The recipes of D-VAE run whole at a tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bezoar.bench.recipe import Claims
from bezoar.data import ImageData, noise_images
from bezoar.purify import DVAE
from bezoar.train import Training
from recipes.mini import class_patterns, dvae_ablation, scale_dvae
from recipes.mini import dvae as small
from recipes.paper import dvae as paper


@pytest.mark.slow
def test_every_arm_of_the_paper_recipe_is_trained_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = noise_images(60, size=16).images.numpy()
    labels = np.arange(60) % 10
    path = tmp_path / "data.npz"
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images.transpose(0, 2, 3, 1)[:20],
        test_labels=labels[:20],
    )
    words = ["tue", "--npz", str(path), "--limit", "60", "--width", "2", "--clean"]
    words += ["--epochs", "1", "--classifier-epochs", "1", "--baselines"]
    assert (
        paper.main([*words, "--device", "cpu"]) == 1
    )  # clean accuracy is out of reach
    printed = json.loads(capsys.readouterr().out)
    arms = ["poisoned", "purified", "clean", "jpeg", "grey", "depth"]
    for name in [*arms, "quick", "cutout", "ueraser", "adversarial"]:
        assert 0 <= printed["facts"][name]["accuracy"] <= 1
    failed = [row["name"] for row in printed["claims"] if not row["passed"]]
    assert failed == ["clean_accuracy"]
    assert printed["facts"]["clean"]["pixels"] <= 0.5  # nothing was added


def few(split: str, *, limit: int) -> ImageData:
    data = noise_images(min(limit, 60 if split == "train" else 20), size=32)
    number = torch.arange(len(data)) % 10
    return replace(data, labels=number, class_names=tuple(map(str, range(10))))


@pytest.mark.slow
def test_the_small_recipe_runs_whole_for_one_attack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(small, "cifar10", few)
    method = replace(DVAE.mini(), width=2, latent_width=4, epochs=1)
    monkeypatch.setattr(small, "METHOD", method)
    monkeypatch.setattr(small, "PROTOCOL", Training(epochs=1))
    assert small.script(["--attack", "lsp", "--json"]) == 1  # nothing is learnt here
    printed = json.loads(capsys.readouterr().out)
    named = {row["name"]: row for row in printed["claims"]}
    assert named["lsp: told before, pixels"]["passed"]
    assert named["clean: classes in which a pattern is found"]["passed"]
    assert not named["clean accuracy"]["passed"]
    assert "not scoreable" in named["lsp: gaps of the probes"]["value"]
    assert list(printed["facts"]["lsp"]) == [
        "given",
        "dvae",
        "quick",
        "jpeg",
        "grey",
    ]
    assert printed["facts"]["lsp"]["given"]["left"] == pytest.approx(1.0)
    assert not any(name.startswith("ops") for name in named)


@pytest.mark.slow
def test_the_ablation_runs_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DVAE(width=2, latent_width=4, epochs=1, batch_size=20)
    for name, value in {
        "cifar10": few,
        "PROTOCOL": Training(epochs=1),
        "VARIANTS": {"whole": method, "fine": replace(method, stages="fine")},
    }.items():
        monkeypatch.setattr(dvae_ablation, name, value)
    claims = Claims()
    dvae_ablation.body(claims, lambda _: None)
    rows = {row.name: str(row.value) for row in claims.rows}
    assert "cosine" in rows["whole"]
    assert "cosine" not in rows["fine"]
    assert "left 1.0" not in rows["JPEG in its place"]


@pytest.mark.slow
def test_the_recipe_on_patterns_runs_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "cifar10": few,
        "PROTOCOL": Training(epochs=1),
        "SEEDS": 1,
        "BY_CLASS": {"lsp": class_patterns.BY_CLASS["lsp"]},
        "OTHERS": {"cuda": class_patterns.OTHERS["cuda"]},
    }.items():
        monkeypatch.setattr(class_patterns, name, value)
    claims = Claims()
    class_patterns.body(claims, lambda _: None)
    rows = {row.name: row for row in claims.rows}
    assert rows["clean: images changed"].value == 0
    assert rows["lsp: share of accuracy recovered, quick"].gate == ">= 0.6"
    assert "quick 0" in str(rows["cuda: accuracy"].value)


def test_what_is_wanted_is_stated_with_whether_it_was_reached() -> None:
    claims = Claims()
    claims.wanted("a", 0.5, at_least=0.5)
    claims.wanted("b", 0.6, at_most=0.5)
    assert [row.gate for row in claims.rows] == [
        "wanted >= 0.5: reached",
        "wanted <= 0.5: missed",
    ]
    assert all(row.passed for row in claims.rows)


def test_images_of_any_number_are_all_different() -> None:
    found = scale_dvae.images(2500)
    flat = found.images.flatten(1)
    assert len(flat.unique(dim=0)) == len(found.ids) == 2500
    assert torch.bincount(found.labels).tolist() == [250] * 10
    told = scale_dvae.one("small", 20)
    assert told["gib"] > 0.1
    assert told["seconds"] > 0
