"""Networks that somebody made to do harm are loaded."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bezoar.bench import hostile
from bezoar.errors import BezoarError
from bezoar.models import (
    Architecture,
    DVAENet,
    EnergyNet,
    TinyClip,
    UNet,
    WordTokenizer,
    is_dual_encoder,
    is_encoder,
    load_denoiser,
    load_dual_encoder,
    load_dvae,
    load_encoder,
    load_energy,
    load_model,
    save_denoiser,
    save_dual_encoder,
    save_dvae,
    save_encoder,
    save_energy,
    save_model,
    simclr,
)

_SIZE = (8, 8)


class _Network(NamedTuple):
    save: Callable[[Path], object]
    card: str
    load: Callable[[Path], object]


def weights(chance: random.Random, folder: Path) -> None:
    """Load a model from weights that lie.

    Args:
        chance: Where they come from.
        folder: An empty folder.
    """
    suffix = chance.choice((".safetensors", ".pt", ".bin"))
    path = folder / f"model{suffix}"
    hostile.weights(chance, path)
    for unsafe in (False, True):
        with suppress(BezoarError):
            load_model(f"resnet18@{path}", unsafe_pickle=unsafe)
        with suppress(BezoarError):
            load_model(str(path), unsafe_pickle=unsafe)


def cards(chance: random.Random, folder: Path) -> None:
    """Load networks of ours whose settings lie beside weights that do not.

    Args:
        chance: Where the settings come from.
        folder: An empty folder.
    """
    network = chance.choice(_NETWORKS)
    network.save(folder)
    path = folder / network.card
    path.write_bytes(_bent(path.read_bytes(), chance))
    for is_one in (is_encoder, is_dual_encoder):
        is_one(str(folder))
    with suppress(BezoarError):
        network.load(folder)


def _bent(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return hostile.deep_json(chance)
    card = json.loads(content)
    for _ in range(chance.randint(1, 2)):
        key = chance.choice(list(card))
        card[key] = copy.deepcopy(chance.choice(_VALUES))
        if isinstance(sizes := card.get("sizes"), dict) and sizes:
            sizes[chance.choice(list(sizes))] = copy.deepcopy(chance.choice(_VALUES))
    return json.dumps(card).encode()


_VALUES: tuple[object, ...] = (
    None, -1, 0, 1, 7, 2**20, 2**31, 2**62, 10**400, 1.5, "x", "", True, [], [[]], {},
    [1e308], [-1], [0.0], [2**40, 2**40], [2**20] * 6, "../x", {"a": []}, [None],
)  # fmt: skip


def _classifier(folder: Path) -> None:
    architecture = Architecture(name="convnet", num_classes=2, width=4)
    save_model(architecture.build(), folder, architecture=architecture)


def _clip(folder: Path) -> None:
    words = WordTokenizer.from_captions(["a cat", "a dog"])
    save_dual_encoder(TinyClip(words, resolution=24), folder)


_NETWORKS = (
    _Network(_classifier, "model.json", lambda p: load_model(str(p))),
    _Network(
        lambda p: save_encoder(simclr("tiny"), p),
        "encoder.json",
        lambda p: load_encoder(str(p)),
    ),
    _Network(
        lambda p: save_energy(
            EnergyNet(num_filters=4, image_size=_SIZE), p / "e.safetensors"
        ),
        "e.json",
        lambda p: load_energy(p / "e.safetensors"),
    ),
    _Network(
        lambda p: save_dvae(
            DVAENet(2, image_size=_SIZE, width=4, latent_width=8), p / "d.safetensors"
        ),
        "d.json",
        lambda p: load_dvae(p / "d.safetensors"),
    ),
    _Network(
        lambda p: save_denoiser(
            UNet(channels=(4, 4), num_blocks=1), p / "u.safetensors"
        ),
        "u.json",
        lambda p: load_denoiser(p / "u.safetensors"),
    ),
    _Network(_clip, "clip.json", lambda p: load_dual_encoder(str(p))),
)
