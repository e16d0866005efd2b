"""A diagnosis of an encoder as a folder: a report, and the patch that was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bezoar.data.choice import encode_png
from bezoar.errors import InputError, StorageError
from bezoar.files import atomic
from bezoar.results import Diagnosis, Provenance
from bezoar.storage.parts import built
from bezoar.storage.plain import as_plain, read_object, write_json

_REPORT, _PATCH = "diagnosis.json", "patch.safetensors"
_IN_PATCH = ("mask", "pattern")


def save_diagnosis(
    found: Diagnosis, folder: Path, *, extra: Mapping[str, object] | None = None
) -> None:
    """Write a diagnosis to a folder.

    ``diagnosis.json`` holds the verdict and how it came about, ``patch.safetensors``
    the mask and the pattern as numbers; ``mask.png`` and ``pattern.png`` show them.

    Args:
        found: What to write.
        folder: Where to; made if it is missing. Files of these names are replaced.
        extra: More plain values for ``diagnosis.json``, under keys of their own.

    Raises:
        InputError: If a key of ``extra`` has a name that is taken.
        StorageError: If the folder cannot be made.
    """
    plain = plain_diagnosis(found)
    if taken := sorted(plain.keys() & (extra or {}).keys()):
        raise InputError(f"expected other keys in extra than {taken}; rename them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"expected a folder to write to at {str(folder)!r}, got "
            f"{error.strerror or error}; choose another"
        ) from error
    patch = {"mask": found.mask, "pattern": found.pattern}
    shown = {"mask": found.mask.expand(3, -1, -1), "pattern": found.pattern}
    for name, picture in shown.items():
        pixels = (picture * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        with atomic(folder / f"{name}.png") as temporary:
            temporary.write_bytes(encode_png(pixels))
    with atomic(folder / _PATCH) as temporary:
        save_file(
            {k: v.float().cpu().contiguous() for k, v in patch.items()}, temporary
        )
    write_json(folder / _REPORT, {**plain, **(extra or {})})


def plain_diagnosis(found: Diagnosis) -> dict[str, object]:
    """Return a diagnosis without the patch itself, as JSON takes it.

    Args:
        found: The diagnosis.

    Returns:
        Plain values by name; null for what is no number.
    """
    told = {k: v for k, v in vars(found).items() if k not in _IN_PATCH}
    return cast("dict[str, object]", as_plain(told))


def load_diagnosis(folder: Path) -> Diagnosis:
    """Read a diagnosis that :func:`save_diagnosis` wrote.

    Args:
        folder: The folder that was written.

    Returns:
        The same diagnosis.

    Raises:
        StorageError: If a file is missing or damaged.
    """
    plain = cast("dict[str, Any]", read_object(folder / _REPORT))
    try:
        patch = load_file(folder / _PATCH)
        return Diagnosis(
            status=plain["status"],
            summary=plain["summary"],
            score=plain["score"],
            area=plain["area"],
            threshold=plain["threshold"],
            cosine=math.nan if plain["cosine"] is None else plain["cosine"],
            mask=patch["mask"],
            pattern=patch["pattern"],
            restarts=tuple(
                {k: math.nan if v is None else v for k, v in row.items()}
                for row in plain["restarts"]
            ),
            provenance=built(Provenance, plain["provenance"]),
            reference_areas=tuple(plain["reference_areas"]),
            p_value=plain["p_value"],
            limits=tuple(plain["limits"]),
        )
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"expected a diagnosis in {str(folder)!r}, got {_REPORT} and {_PATCH} that "
            f"do not hold one ({error}); diagnose again"
        ) from error
