"""The file of a checkpoint: tensors and facts, written whole and checked when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bezoar.errors import StorageError
from bezoar.files import atomic

_TRAINING = "training.safetensors"


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], *, about: Mapping[str, object]
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: The file.
        tensors: The state, by name.
        about: The key of the training, and plain values beside the tensors.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    told = json.dumps(about)
    metadata = {"about": told, "blake2b": _digest(plain, told)}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata)


def read_checkpoint(
    path: Path, *, key: str
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a checkpoint, if it is of this very training.

    Args:
        path: The file; it may be missing.
        key: Names the training.

    Returns:
        The tensors and what was told about them; None where there is no checkpoint,
        or one of another training.

    Raises:
        StorageError: If the file cannot be read, or a bit of it has changed.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = metadata["about"]
        about: dict[str, Any] = dict(json.loads(told))
        is_sound = metadata["blake2b"] == _digest(tensors, told)
        found = about.pop("key") if is_sound else None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"expected a checkpoint in {str(path)!r}, got a damaged file ({error}); "
            "remove it to train from the start"
        ) from error
    if found is None:
        raise StorageError(
            f"expected a checkpoint in {str(path)!r}, got a damaged file (its checksum "
            "is another); remove it to train from the start"
        )
    return (tensors, about) if found == key else None


def forget_training(folder: Path | None) -> None:
    """Remove the checkpoints in a folder: what they led to is stored elsewhere.

    Trainings leave theirs when they are over, for a run may be killed before it has
    written the network. Call this when it has.

    Args:
        folder: The ``work_dir`` of the training; None does nothing.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> (folder / "training.safetensors").touch()
        >>> forget_training(folder)
        >>> list(folder.iterdir())
        []
    """
    if folder is None:
        return
    (folder / _TRAINING).unlink(missing_ok=True)
    for path in folder.glob(f"*.{_TRAINING}"):
        path.unlink()


def training_path(folder: Path | None, *, stage: str = "") -> Path | None:
    """Return the file of a training's checkpoint.

    Args:
        folder: The ``work_dir`` of the training, or None.
        stage: Which training of a run it is; empty where there is one.

    Returns:
        The file; None without a folder.
    """
    if folder is None:
        return None
    return folder / (f"{stage}.{_TRAINING}" if stage else _TRAINING)


def _digest(tensors: Mapping[str, Tensor], told: str) -> str:
    digest = hashlib.blake2b(told.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        facts = json.dumps([name, str(tensor.dtype), *tensor.shape])
        digest.update(facts.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
