"""Weights on disk and in a model: read with suspicion, put in with care, fingerprinted.

A pickle is a program that runs when it is opened. It is refused; on request, torch's
reader that builds tensors and nothing else is tried, and full unpickling never is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.probe import reason
from bezoar.models.wrap import unwrapped

_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # a zip as torch writes it; a bare pickle
_NESTS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path, *, unsafe_pickle: bool = False) -> dict[str, Tensor]:
    """Read named tensors from a file.

    Args:
        path: A safetensors file; or a pickle of torch's, if that is allowed.
        unsafe_pickle: Open a pickle with torch's restricted reader.

    Returns:
        Tensors by name, on the CPU, without the prefixes that wrappers add.

    Raises:
        ModelError: If there is no such file, it is a pickle, it cannot be read, it
            holds something else than tensors, or a tensor is not finite.
    """
    if not path.is_file():
        raise ModelError(
            f"expected weights in {str(path)!r}, got no such file; check the path"
        )
    try:
        is_pickle = not _is_safetensors(path)
        found: object = None if is_pickle else load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"expected weights as safetensors in {str(path)!r}, got a file that cannot "
            f"be read ({reason(error)}); copy it again"
        ) from error
    if is_pickle:
        found = _read_pickle(path, unsafe_pickle=unsafe_pickle)
    weights = _without_prefixes(_checked(found, path))
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"expected finite weights, got NaN or infinity in {name!r} of "
                f"{path.name!r}; take a checkpoint from before the training diverged"
            )
    return weights


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], *, path: Path) -> None:
    """Load weights into a model, all of them and nothing else.

    Args:
        model: The model; changed in place.
        weights: Tensors by name. Counters of batch norms may be missing, as they are
            in old files; nothing depends on them in eval mode.
        path: Where the weights come from, for the message.

    Raises:
        ModelError: If names or shapes differ; the message lists the first.
    """
    wanted = model.state_dict()
    missing = [
        name
        for name in wanted
        if name not in weights and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in weights if name not in wanted]
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in weights.items()
        if name in wanted and wanted[name].shape != tensor.shape
    ]
    faults = [
        f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
        for what, names in (
            ("without", missing),
            ("with unknown", unexpected),
            ("with", reshaped),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"expected the weights of this {type(model).__name__} in {path.name!r}, "
            f"got a file {'; '.join(faults)}; name the architecture that it belongs to"
        )
    model.load_state_dict(dict(weights), strict=False)


def fingerprint(model: nn.Module) -> str:
    """Return a short text that two models share only if they are equal.

    Args:
        model: Any model; the order of its modules and wrappers do not matter, names,
            types, shapes and values of its weights and buffers do.

    Returns:
        The BLAKE2b hash of its state, 32 hexadecimal digits.

    Example:
        >>> from bezoar.models.convnet import convnet
        >>> a, b, c = (fingerprint(convnet(2, width=4, seed=s)) for s in (0, 0, 1))
        >>> a == b, a == c, len(a)
        (True, False, 32)
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(unwrapped(model).state_dict().items()):
        if not isinstance(value, Tensor):  # extra state of a module of the user's
            digest.update(repr((name, value)).encode())
            continue
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: The file.

    Returns:
        The hash, 64 hexadecimal digits.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_safetensors(path: Path) -> bool:
    """Return whether a file starts as safetensors do: a length, then JSON."""
    with path.open("rb") as stream:
        start = stream.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= path.stat().st_size - 8


def _read_pickle(path: Path, *, unsafe_pickle: bool) -> object:
    with path.open("rb") as stream:
        start = stream.read(4)
    if not (start.startswith(_PICKLE_STARTS) or path.suffix in _PICKLE_SUFFIXES):
        raise ModelError(
            f"expected weights as safetensors, got {path.name!r}, which is something "
            "else or damaged; convert or copy it again"
        )
    if not unsafe_pickle:
        raise ModelError(
            f"expected weights as safetensors, got the pickle {path.name!r}, which may "
            "run code when it is opened; convert it, or pass --unsafe-pickle "
            "(unsafe_pickle=True) if you trust where it comes from"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"expected tensors alone in {path.name!r}, got a pickle that asks for more "
            f"({reason(error)}); opening it could run any code with your rights, so "
            "bezoar never does: ask for safetensors"
        ) from error


def _checked(found: object, path: Path) -> dict[str, Tensor]:
    for name in _NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise ModelError(
            f"expected named tensors in {path.name!r}, got "
            f"{'nothing' if found == {} else f'a {type(found).__name__}'}; save the "
            "model's state_dict"
        )
    for name, value in found.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ModelError(
                f"expected named tensors in {path.name!r}, got a "
                f"{type(value).__name__} as {name!r}; save the model's state_dict alone"
            )
    return dict(found)


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := _shared(weights):
        weights = {name.removeprefix(prefix): w for name, w in weights.items()}
    return weights


def _shared(names: Iterable[str]) -> str | None:
    return next((p for p in _PREFIXES if all(n.startswith(p) for n in names)), None)
