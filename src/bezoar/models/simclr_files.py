"""Our encoders on disk: safetensors, and beside them their sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.resnet import ResNet
from bezoar.models.room import BAD_CARD, room_for
from bezoar.models.simclr import SimCLR, simclr
from bezoar.models.weights import file_sha256, put_weights, read_weights
from bezoar.models.wrap import Normalized, unwrapped

_NAMES = {8: "resnet18", 4: "tiny"}  # by the number of blocks


def save_encoder(encoder: nn.Module, path: Path) -> None:
    """Save one of our encoders.

    Args:
        encoder: What ``simclr`` built, now trained.
        path: A file that ends in .safetensors, with the JSON beside it; or a folder,
            which gets ``encoder.safetensors`` and ``encoder.json``.
            An encoder of another kind is a ``ModelError``.
    """
    net = unwrapped(encoder)
    card = encoder_card(net)
    path = encoder_path(path)
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary)
        sha256 = file_sha256(temporary)
    with atomic(path.with_suffix(".json")) as temporary:
        text = json.dumps({"kind": "simclr", **card, "sha256": sha256}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def load_simclr(path: Path) -> SimCLR:
    """Load an encoder that ``save_encoder`` wrote.

    Args:
        path: The file, its JSON beside it; or the folder that holds both.

    Returns:
        The encoder in eval mode on the CPU.

    Raises:
        ModelError: If a file is missing or damaged, or they do not fit together.
    """
    path = encoder_path(path)
    beside = path.with_suffix(".json")
    weights = read_weights(path)
    try:
        card: dict[str, Any] = dict(json.loads(beside.read_text(encoding="utf-8")))
        kind, sha256 = card.pop("kind"), card.pop("sha256")
        with room_for(weights):
            net = simclr(**card) if kind == "simclr" else None
    except BAD_CARD as error:
        raise ModelError(
            f"expected the settings of an encoder in {str(beside)!r}, got {error!r}; "
            "restore the file that was saved with the weights"
        ) from error
    if net is None:
        raise ModelError(
            f"expected the settings of an encoder in {str(beside)!r}, got those of "
            f"something else ({kind!r}); give the file of an encoder"
        )
    if file_sha256(path) != sha256:
        raise ModelError(
            f"expected the weights that {beside.name!r} was written for, got others in "
            f"{path.name!r}; restore the pair"
        )
    put_weights(net, weights, path=path)
    return net.eval()


def encoder_path(place: Path) -> Path:
    """Return the file of an encoder's weights.

    Args:
        place: The file, or the folder that holds it.

    Returns:
        The file.
    """
    return place if place.suffix == ".safetensors" else place / "encoder.safetensors"


def encoder_card(net: nn.Module) -> dict[str, Any]:
    """Return the sizes that one of our encoders is built from.

    Args:
        net: What ``simclr`` built.

    Returns:
        The arguments of ``simclr`` but for the seed.

    Raises:
        ModelError: If it is an encoder of another kind.
    """
    around = net.backbone if isinstance(net, SimCLR) else None
    core = around.model if isinstance(around, Normalized) else None
    if not isinstance(core, ResNet) or not isinstance(around, Normalized):
        raise ModelError(
            "expected an encoder that simclr() built, got a "
            f"{type(net).__name__}; save another kind with write_encoder"
        )
    blocks = sum(
        len(layer) for layer in (core.layer1, core.layer2, core.layer3, core.layer4)
    )
    return {
        "name": _NAMES.get(blocks),
        "image_size": around.image_size,
        "mean": around.mean.flatten().tolist(),
        "std": around.std.flatten().tolist(),
    }
