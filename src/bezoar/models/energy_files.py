"""Energy networks on disk: weights as safetensors, and beside them a card in JSON.

The card says what the network is and how it was trained. Networks that ship lie in
``bezoar/weights`` and are named by their file, such as ``"cifar10-nf32"``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.energy import EnergyNet
from bezoar.models.room import BAD_CARD, room_for
from bezoar.models.weights import file_sha256, put_weights, read_weights

_SIZES = ("num_filters", "patch_size", "in_channels", "image_size")


def shipped_energies() -> tuple[str, ...]:
    """Return the names of the networks that come with the package.

    Returns:
        Names for ``load_energy``, sorted.

    Example:
        >>> "cifar10-nf32" in shipped_energies()
        True
    """
    files = (Path(str(file)) for file in _shipped().iterdir())
    return tuple(sorted(f.stem for f in files if f.suffix == ".safetensors"))


def load_energy(spec: str | Path) -> EnergyNet:
    """Load an energy network.

    Args:
        spec: A name of ``shipped_energies``, or a safetensors file with its card, a
            JSON file of the same name, beside it.

    Returns:
        The network in eval mode on the CPU.

    Raises:
        ModelError: If there is no such network, or its files do not fit together.

    Example:
        >>> load_energy("cifar10-nf32").num_filters
        32
    """
    path = Path(spec)
    if str(spec) in shipped_energies():
        path = Path(str(_shipped() / f"{spec}.safetensors"))
    elif not path.is_file():
        raise ModelError(
            f"expected an energy network, got {str(spec)!r}, which is neither a file "
            f"nor one of {', '.join(shipped_energies())}; name one of them, or train "
            "one with `bezoar train-energy`"
        )
    card = _read_card(path.with_suffix(".json"))
    weights = read_weights(path)
    try:
        sizes = {name: card[name] for name in _SIZES}
        height, width = (int(side) for side in sizes.pop("image_size"))
        with room_for(weights):
            net = EnergyNet(image_size=(height, width), **sizes)
    except BAD_CARD as error:
        raise ModelError(
            f"expected the sizes of an energy network in {path.stem!r}'s card, got "
            f"others ({error}); restore the file that was saved with the weights"
        ) from error
    if card.get("sha256") != file_sha256(path):
        raise ModelError(
            f"expected the weights that {path.stem!r}'s card is about, got another "
            "file; restore the pair"
        )
    put_weights(net, weights, path=path)
    net.card = {k: v for k, v in card.items() if k not in (*_SIZES, "sha256")}
    return net.eval().requires_grad_(False)


def save_energy(net: EnergyNet, path: Path) -> None:
    """Save an energy network and its card.

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


def _shipped() -> Traversable:
    return resources.files("bezoar") / "weights"


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(card)
    except BAD_CARD as error:
        raise ModelError(
            f"expected the card of an energy network in {str(path)!r}, got "
            f"{type(error).__name__}; restore the file that was saved with the weights"
        ) from error
