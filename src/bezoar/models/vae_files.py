"""Disentangling autoencoders on disk: safetensors, and beside them their sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.probe import reason
from bezoar.models.room import BAD_CARD, room_for
from bezoar.models.vae import DVAENet
from bezoar.models.weights import file_sha256, put_weights, read_weights


def save_dvae(net: DVAENet, path: Path) -> None:
    """Save an autoencoder.

    Args:
        net: The network.
        path: A file that ends in .safetensors; the sizes take its name with .json.

    Raises:
        ModelError: If the name has another ending.
    """
    if path.suffix != ".safetensors":
        raise ModelError(
            f"expected a name that ends in .safetensors, got {path.name!r}; rename it"
        )
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary)
    card = {**net.settings, "sha256": file_sha256(path)}
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def load_dvae(path: Path) -> DVAENet:
    """Load an autoencoder.

    Args:
        path: The file that ``save_dvae`` wrote, its JSON beside it.

    Returns:
        The network in eval mode on the CPU.

    Raises:
        ModelError: If a file is missing or damaged, or they do not fit together.
    """
    weights = read_weights(path)
    try:
        text = path.with_suffix(".json").read_text(encoding="utf-8")
        card: dict[str, Any] = dict(json.loads(text))
        sha256 = card.pop("sha256")
        height, width = card.pop("image_size")
        with room_for(weights):
            net = DVAENet(image_size=(height, width), **card)
    except BAD_CARD as error:
        raise ModelError(
            f"expected the sizes of a D-VAE in {str(path.with_suffix('.json'))!r}, got "
            f"{reason(error)}; restore the file that was saved with the weights"
        ) from error
    if file_sha256(path) != sha256:
        raise ModelError(
            f"expected the weights that {path.with_suffix('.json').name!r} is about, "
            f"got another {path.name!r}; restore the pair"
        )
    put_weights(net, weights, path=path)
    return net.eval().requires_grad_(False)
