"""Recipes that take long run whole on a few made images."""

from dataclasses import replace

import pytest
import torch

from bezoar import EncoderInversion, PureEBM
from bezoar.bench import transfer
from bezoar.bench.recipe import Claims
from bezoar.data import ImageData, noise_images
from bezoar.train import Training
from recipes.mini import diagnose_encoder, pure_ebm_limits, pure_ebm_steps

TEN = tuple("abcdefghij")


def made(_split: str, *, limit: int, skip: int = 0) -> ImageData:
    images = noise_images(limit, size=32, seed=skip)
    return replace(images, labels=torch.arange(limit) % 10, class_names=TEN)


def coloured(split: str, *, limit: int, skip: int = 0) -> ImageData:
    data = made(split, limit=limit, skip=skip)
    colours = torch.stack([data.labels % 3 * 90, data.labels // 3 * 60], dim=1)
    images = data.images // 8
    images[:, :2] += colours[:, :, None, None].to(torch.uint8)
    return replace(data, images=images)


def silent(_: object) -> None:
    pass


def test_the_limits_of_pure_ebm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "cifar10": made,
        "NUM_IMAGES": 200,
        "NUM_TEST": 20,
        "POOL": (200, 50),
        "PROTOCOL": Training(epochs=1),
        "METHOD": PureEBM(steps=2),
    }.items():
        monkeypatch.setattr(pure_ebm_limits, name, value)
    claims = Claims()
    pure_ebm_limits.body(claims, silent)
    names = [row.name for row in claims.rows]
    assert len(names) == len(set(names)) == 4 * 3 * 2
    assert "narcissus, a whole class: success, JPEG 75" in names
    assert all(0 <= float(row.value) <= 1 for row in claims.rows)  # type: ignore[arg-type]


def test_the_steps_of_pure_ebm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "cifar10", coloured)
    monkeypatch.setattr(transfer, "NUM_POOL", 600)
    monkeypatch.setattr(transfer, "_NUM_TEST", 100)
    for name, value in {
        "cifar10": coloured,
        "NUM_FEATURES": 100,
        "NUM_VICTIMS": 1,
        "NUM_SEEDS": 1,
        "GRID": (1, 2),
        "CHOSEN": 2,
        "PROTOCOL": Training(epochs=1),
    }.items():
        monkeypatch.setattr(pure_ebm_steps, name, value)
    claims = Claims()
    pure_ebm_steps.body(claims, silent)
    rows = {row.name: row.value for row in claims.rows}
    assert rows["PSNR after 1"] > rows["PSNR after 2"] > 20  # type: ignore[operator]
    assert rows["accuracy lost after 0"] == 0


def test_the_diagnosis_of_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [made("", limit=80, skip=part) for part in range(6)]
    sets = diagnose_encoder.Sets(
        **dict(zip(diagnose_encoder.Sets.__annotations__, parts, strict=True))
    )
    monkeypatch.setattr(diagnose_encoder.Sets, "read", lambda: sets)
    for name, value in {
        "NUM_PAIRS": 1,
        "PROTOCOL": Training(epochs=1),
        "METHOD": EncoderInversion(steps=3, num_restarts=1, num_windows=1),
    }.items():
        monkeypatch.setattr(diagnose_encoder, name, value)
    claims = Claims()
    diagnose_encoder.body(claims, silent)
    assert {"auroc", "status, untrained", "found, clean"} <= {
        row.name for row in claims.rows
    }
    assert len(claims.facts["areas"]["clean"]) == 1  # type: ignore[index]
