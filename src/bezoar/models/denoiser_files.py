"""Denoisers on disk: weights as safetensors, and beside them a card in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.room import BAD_CARD, room_for
from bezoar.models.unet import UNet
from bezoar.models.weights import file_sha256, put_weights, read_weights

_SIZES = ("channels", "num_blocks", "in_channels", "num_levels")


def load_denoiser(path: Path | str) -> UNet:
    """Load a denoiser.

    Args:
        path: A safetensors file that ``save_denoiser`` wrote, its card beside it.

    Returns:
        The network in eval mode on the CPU.

    Raises:
        ModelError: If the files are not there or do not belong together.
    """
    path = Path(path)
    weights = read_weights(path)
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with room_for(weights):
            net = UNet(
                channels=tuple(card["channels"]),
                num_blocks=card["num_blocks"],
                in_channels=card["in_channels"],
            )
        net.num_levels, belongs = int(card["num_levels"]), card["sha256"]
    except BAD_CARD as error:
        raise ModelError(
            f"expected the card of a denoiser beside {path.name!r}, got "
            f"{type(error).__name__}; restore the file that was saved with the weights"
        ) from error
    if belongs != file_sha256(path):
        raise ModelError(
            f"expected the weights that {path.stem!r}'s card is about, got another "
            "file; restore the pair"
        )
    put_weights(net, weights, path=path)
    net.card = {k: v for k, v in card.items() if k not in (*_SIZES, "sha256")}
    return net.eval().requires_grad_(False)


def save_denoiser(net: UNet, path: Path) -> None:
    """Save a denoiser and its card.

    Args:
        net: The network; its card is stored as well.
        path: A file that ends in .safetensors; the card takes its name with .json.

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
    card = {name: getattr(net, name) for name in _SIZES}
    card |= {"sha256": file_sha256(path), **net.card}
    with atomic(path.with_suffix(".json")) as temporary:
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
