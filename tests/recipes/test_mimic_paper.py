"""The recipes of encoder repair for one GPU run from files, small, on a CPU."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bezoar.bench import encoder_recipe
from bezoar.data import noise_images
from recipes.paper import (
    mimic_ablation,
    mimic_badencoder,
    mimic_ctrl,
    mimic_victim,
)

NAMES = {
    "mimic_victim": mimic_victim,
    "mimic_badencoder": mimic_badencoder,
    "mimic_ablation": mimic_ablation,
    "mimic_ctrl": mimic_ctrl,
}


@pytest.mark.slow
def test_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 1700), ("test", 100)):
        images = noise_images(count, size=32).images.numpy()
        labels = (torch.arange(count) % 10).numpy()
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    words = ["--data", str(tmp_path), "--work", str(tmp_path / "work")]
    words += ["--size", "tiny", "--device", "cpu"]
    for name, recipe in NAMES.items():
        monkeypatch.setattr(sys, "argv", [name, *words])
        encoder_recipe.run(name, recipe.body, None)
        printed = json.loads(capsys.readouterr().out)
        assert printed["recipe"] == f"paper/{name}"
        assert printed["claims"]
        assert printed["facts"]["measured"]
