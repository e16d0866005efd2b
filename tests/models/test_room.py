"""Settings that lie about sizes cost neither memory nor time, and are one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bezoar.errors import BezoarError, ModelError
from bezoar.models import (
    Architecture,
    ClipResNet,
    DVAENet,
    EnergyNet,
    Normalized,
    UNet,
    WordTokenizer,
    is_dual_encoder,
    is_encoder,
    load_denoiser,
    load_dual_encoder,
    load_dvae,
    load_energy,
    load_model,
    save_denoiser,
    save_dual_encoder,
    save_dvae,
    save_energy,
    save_model,
)
from bezoar.models.room import fill, room_for

WORDS = WordTokenizer.from_captions(["a cat"])
DEEP = "[" * 100_000 + "]" * 100_000


def test_a_network_larger_than_its_weights_is_refused() -> None:
    with room_for({"weight": torch.zeros(2)}):
        fill(nn.Linear(10, 10, device="meta"))
        with pytest.raises(ModelError, match=r"at most 10,002 values.*of 1,001,000"):
            fill(nn.Linear(1000, 1000, device="meta"))
    fill(nn.Linear(1000, 1000, device="meta"))


def save_clip(path: Path) -> None:
    net = ClipResNet(
        WORDS, resolution=32, layers=(1, 1, 1, 1), width=8, embedding=8,
        text_width=8, text_layers=1, text_heads=1, stem="small",
    )  # fmt: skip
    save_dual_encoder(net, path.parent)


Do = Callable[[Path], object]
NETWORKS: dict[str, tuple[Do, Do]] = {
    "energy": (
        lambda p: save_energy(EnergyNet(num_filters=4, image_size=(8, 8)), p),
        load_energy,
    ),
    "dvae": (
        lambda p: save_dvae(DVAENet(2, image_size=(8, 8), width=4, latent_width=8), p),
        load_dvae,
    ),
    "denoiser": (
        lambda p: save_denoiser(UNet(channels=(4, 4), num_blocks=1), p),
        load_denoiser,
    ),
    "clip": (save_clip, lambda p: load_dual_encoder(str(p.parent))),
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("energy", {"num_filters": 512, "in_channels": 10**6}),
        ("energy", {"in_channels": 2**62}),
        ("dvae", {"width": 2**20}),
        ("dvae", {"width": -1}),
        ("dvae", {"num_downsamples": 10**400}),
        ("dvae", {"num_classes": 10**9}),
        ("denoiser", {"channels": [2**20, 2**20]}),
        ("denoiser", {"num_blocks": 2**31}),
        ("denoiser", {"in_channels": 2**62}),
        ("clip", {"sizes": {"layers": [2**31] * 4}}),
        ("clip", {"sizes": {"text_layers": 2**31}}),
        ("clip", {"sizes": {"width": 2**20}}),
        ("clip", {"context_length": 2**40}),
    ],
)
def test_cards_that_ask_for_the_world_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, object]
) -> None:
    save, load = NETWORKS[kind]
    path = tmp_path / ("model.safetensors" if kind == "clip" else "a.safetensors")
    save(path)
    load(path)
    card = tmp_path / "clip.json" if kind == "clip" else path.with_suffix(".json")
    told = json.loads(card.read_text())
    sizes = changes.pop("sizes", None)
    if isinstance(sizes, dict):
        told["sizes"] |= sizes
    card.write_text(json.dumps(told | changes))
    with pytest.raises(BezoarError, match="expected "):
        load(path)
    card.write_text(DEEP)
    with pytest.raises(ModelError, match="restore the file"):
        load(path)


def test_small_weights_that_claim_a_large_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lies.safetensors"
    shapes = {
        "stage1.conv.weight": (10**6, 3, 0, 3),
        "stage4.conv.weight": (4 * 10**6, 0, 3, 3),
        "fc.weight": (10**9, 0),
    }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    with pytest.raises(ModelError, match="at most 10,000 values"):
        load_model(str(path))
    flat = {"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.weight": torch.zeros(2, 4)}
    flat |= {
        f"layer{i}.{j}.conv1.weight": torch.tensor(0.0)
        for i in (1, 2, 3, 4)
        for j in (0, 1)
    }
    save_file({n: w.clone() for n, w in flat.items()}, path)
    with pytest.raises(ModelError, match="expected weights of one of"):
        load_model(str(path))


@pytest.mark.parametrize("mean", [10**400, -1e39], ids=["whole", "float"])
def test_numbers_too_large_for_a_float_are_refused(tmp_path: Path, mean: float) -> None:
    architecture = Architecture(name="convnet", num_classes=2, width=4)
    save_model(architecture.build(), tmp_path, architecture=architecture)
    card = tmp_path / "model.json"
    told = json.loads(card.read_text())
    card.write_text(json.dumps(told | {"mean": [mean, 0.0, 0.0]}))
    with pytest.raises(ModelError, match="mean"):
        load_model(str(tmp_path))
    card.write_text(json.dumps(told | {"image_size": 2**40}))
    with pytest.raises(ModelError, match="1 to 8,192 pixels a side"):
        load_model(str(tmp_path))


def test_a_model_for_images_of_no_size_is_refused() -> None:
    for size in (0, -1, 10**9):
        with pytest.raises(ModelError, match="pixels a side"):
            Normalized(nn.Identity(), mean=[0.0], std=[1.0], image_size=size)


def test_a_deep_or_odd_config_is_no_encoder(tmp_path: Path) -> None:
    for text in (DEEP, '{"architectures": 3}', "[]", "null"):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "encoder.json").write_text(text)
        assert not is_encoder(str(tmp_path))
        assert not is_dual_encoder(str(tmp_path))
