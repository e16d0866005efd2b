"""The recipe for a GPU runs whole at a tiny size, from an npz file alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bezoar.attacks.bullseye_polytope import feature_maps
from bezoar.bench import transfer
from bezoar.bench.plain_data import read_plain
from bezoar.data import noise_images
from bezoar.errors import InputError
from bezoar.models import Architecture, load_energy
from bezoar.runtime import Runtime
from recipes.mini import pure_ebm as mini
from recipes.paper import train_energy
from recipes.paper.pure_ebm import SIZES, main


def write(folder: Path, split: str, count: int) -> None:
    images = noise_images(count, size=32).images.permute(0, 2, 3, 1).numpy()
    labels = np.arange(count) % 10
    np.savez(folder / f"{split}.npz", images=images, labels=labels)


def test_every_arm_is_trained_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "train", 500)
    write(tmp_path, "test", 60)
    words = ["--data", str(tmp_path), "--size", "tiny", "--device", "cpu"]
    assert main([*words, "--classes", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["none", "PureEBM", "JPEG 75", "Gaussian of equal length"]
    assert [row.get("arm") for row in rows[:-1]] == names
    assert all(0 <= row["success_x1"] <= 1 and row["poisons"] == 3 for row in rows[:-1])
    assert list(rows[-1]["arms"]) == names
    assert rows[-1]["images_per_second"] > 0


def test_baselines_are_arms_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "train", 500)
    write(tmp_path, "test", 60)
    words = ["--data", str(tmp_path), "--size", "tiny", "--device", "cpu"]
    words += ["--classes", "3", "--baselines", "jpeg", "epic", "friends"]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(rows[-1]["arms"]) == [
        "none",
        *(f"JPEG {quality}" for quality in (25, 50, 75, 85)),
        *(f"EPIC {rate}" for rate in (0.1, 0.2, 0.3)),
        "FRIENDS, Bernoulli",
        "FRIENDS, Gaussian",
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows[:-1])


def test_the_diffusion_sibling_and_the_chains_are_arms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "train", 500)
    write(tmp_path, "test", 60)
    words = ["--data", str(tmp_path), "--size", "tiny", "--device", "cpu"]
    kept = tmp_path / "denoiser.safetensors"
    words += ["--classes", "3", "--denoiser", str(kept)]
    assert main(words) == 0
    first = kept.read_bytes()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["none", "PureEBM", "PureDDPM", "Naive", "Reps", "Filt"]
    assert list(rows[-1]["arms"]) == names
    assert all(0 <= row["success_x1"] <= 1 for row in rows[:-1])
    assert main(words) == 0  # the network is read, not trained again
    assert kept.read_bytes() == first


def test_defences_while_training_are_judged_on_a_transfer_set() -> None:
    model = Architecture(name="convnet", num_classes=10, width=2).build(seed=0)
    images = noise_images(92, size=32)
    every = replace(
        images,
        labels=torch.arange(92) % 10,
        class_names=tuple("0123456789"),
    )
    base, poisons = every.take(torch.arange(60)), every.take(torch.arange(60, 66))
    drill = transfer.TransferDrill(
        base=base,
        rows=(base.labels == transfer.SHIP).nonzero().flatten()[:3],
        poisons=poisons,
        victims=every.images[66:68],
        test=every.take(torch.arange(68, 92)),
    )
    runtime = Runtime(dtype=torch.float32)
    with feature_maps([model], base.images[:2], runtime=runtime) as (features,):
        found, again = (
            mini.while_training(
                drill,
                model,
                features=features,
                friends=friends,
                seed=0,
                runtime=runtime,
            )
            for friends in (True, False)
        )
    assert again == {"EPIC 0.2": found["EPIC 0.2"]}
    assert list(found) == ["EPIC 0.2", "FRIENDS, Bernoulli"]
    assert found["EPIC 0.2"]["psnr"] == 99
    assert 20 < found["FRIENDS, Bernoulli"]["psnr"] < 40


def test_either_order_of_axes_is_read(tmp_path: Path) -> None:
    write(tmp_path, "train", 10)
    found = read_plain(tmp_path, "train")
    assert found.images.equal(noise_images(10, size=32).images)
    assert found.labels.equal(torch.arange(10))
    with pytest.raises(InputError, match="got neither"):
        read_plain(tmp_path, "test")


def test_no_victim_was_shown_to_the_energy_that_ships() -> None:
    first, count = train_energy.POOL
    assert first >= transfer.NUM_FEATURES + transfer.NUM_POOL
    assert SIZES["paper"].victims <= first
    assert first + count <= min(train_energy.VALIDATION[0], mini.VALIDATION)
    card = load_energy("cifar10-nf32").card
    assert card["data"] == f"CIFAR-10, training rows {first} to {first + count - 1}"
