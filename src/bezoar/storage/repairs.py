"""A repair as a folder: the network, how it went, and the images it worked on."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import nn

from bezoar.errors import InputError, ModelError, StorageError
from bezoar.models import (
    ClipResNet,
    TinyClip,
    TransformersClip,
    architecture_of,
    fingerprint,
    is_dual_encoder,
    is_encoder,
    load_dual_encoder,
    load_encoder,
    load_model,
    put_weights,
    read_weights,
    save_dual_encoder,
    save_model,
    write_encoder,
)
from bezoar.results import Provenance, Repair
from bezoar.storage.detections import load_detection, save_detection
from bezoar.storage.parts import built
from bezoar.storage.plain import read_object, write_json
from bezoar.storage.tables import read_table, write_table

_FORMAT = 1
_MODEL, _REPORT, _SETS = "model.safetensors", "report.json", "images.parquet"
_DETECTION = "detection"


_Numbers = dict[str, float | None]
_Tables = dict[str, list[dict[str, object]]]


def save_repair(
    repair: Repair, folder: Path, *, extra: Mapping[str, object] | None = None
) -> None:
    """Write a repair to a folder.

    ``model.safetensors`` holds the network, with ``model.json`` beside it if it is one
    of ours, so that ``load_model`` takes the folder; an image-text model is written as
    ``load_dual_encoder``, and an encoder as ``load_encoder`` takes it. ``report.json``
    holds the history and how it came about; ``images.parquet`` which images the method
    worked on; ``detection`` what the method found, where it looked for poison itself.

    Args:
        repair: What to write.
        folder: Where to; made if it is missing. Files of these names are replaced.
        extra: More plain values for ``report.json``, under keys of their own.

    Raises:
        InputError: If a key of ``extra`` has a name that is taken; a ``StorageError``
            follows a folder that cannot be written.
    """
    report = {
        "format": _FORMAT,
        "status": repair.status,
        "changed": repair.changed,
        "summary": repair.summary,
        "stop_reason": repair.stop_reason,
        "history": repair.history,
        "kept": repair.kept,
        "health": repair.health,
        "figures": repair.figures,
        "tables": repair.tables,
        "seconds": repair.seconds,
        "has_detection": repair.detection is not None,
        "num_images": {name: len(ids) for name, ids in repair.image_ids.items()},
        "provenance": repair.provenance,
        "model_blake2b": fingerprint(repair.model),
    }
    if taken := sorted(report.keys() & (extra or {}).keys()):
        raise InputError(f"expected other keys in extra than {taken}; rename them")
    _save_network(repair.model, folder / _MODEL)
    rows = [(name, i) for name, ids in repair.image_ids.items() for i in ids]
    write_table(
        folder / _SETS, {"set": [r[0] for r in rows], "id": [r[1] for r in rows]}
    )
    if repair.detection is not None:
        save_detection(repair.detection, folder / _DETECTION)
    write_json(folder / _REPORT, {**report, **(extra or {})})


def load_repair(folder: Path, *, model: nn.Module | None = None) -> Repair:
    """Read a repair that :func:`save_repair` wrote.

    Args:
        folder: The folder that was written.
        model: A network of the kind that was repaired; only one of another library
            needs it, and it is left as it was.

    Returns:
        The same repair.

    Raises:
        StorageError: If a file is missing or damaged, or network and report are not
            of one run; a ``ModelError`` follows a network of another library without
            ``model``.
    """
    report = read_object(folder / _REPORT)
    sets = read_table(folder / _SETS).columns
    network = _load_network(folder / _MODEL, model)
    if report.get("model_blake2b") != fingerprint(network):
        raise StorageError(
            f"expected {_MODEL} and {_REPORT} of one run in {str(folder)!r}, got two "
            "that do not belong together; run the repair again"
        )
    try:
        names = cast("dict[str, int]", report["num_images"])
        rows = list(zip(sets["set"], sets["id"], strict=True))
        history = cast("list[_Numbers]", report["history"])
        return Repair(
            model=network,
            status=report["status"],  # type: ignore[arg-type]
            summary=cast("str", report["summary"]),
            stop_reason=cast("str", report["stop_reason"]),
            history=tuple(map(_numbers, history)),
            kept=cast("int", report["kept"]),
            health=tuple(cast("list[str]", report["health"])),
            image_ids={
                name: tuple(cast("str", i) for own, i in rows if own == name)
                for name in names
            },
            provenance=built(Provenance, report["provenance"]),
            detection=load_detection(folder / _DETECTION)
            if report.get("has_detection")
            else None,
            figures=_numbers(cast("_Numbers", report.get("figures", {}))),
            tables={
                name: tuple(rows)
                for name, rows in cast("_Tables", report.get("tables", {})).items()
            },
            seconds=_numbers(cast("_Numbers", report.get("seconds", {}))),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"expected a repair of format {_FORMAT} in {str(folder)!r}, got another "
            f"({error}); load it with the version of bezoar that wrote it"
        ) from error


def _numbers(row: _Numbers) -> dict[str, float]:
    return {name: math.nan if v is None else v for name, v in row.items()}


def _save_network(model: nn.Module, path: Path) -> None:
    if isinstance(model, TinyClip | ClipResNet | TransformersClip):
        save_dual_encoder(model, path.parent)
        return
    architecture = architecture_of(model)
    if architecture is not None:
        save_model(model, path, architecture=architecture)
        return
    write_encoder(model, path.parent)


def _load_network(path: Path, model: nn.Module | None) -> nn.Module:
    if is_dual_encoder(str(path.parent)):
        return load_dual_encoder(str(path.parent))
    if is_encoder(str(path.parent)):
        return load_encoder(str(path.parent))
    if path.with_suffix(".json").exists():
        return load_model(str(path))
    if model is None:
        raise ModelError(
            f"expected a model to put the weights in {str(path)!r} into, got none; "
            "give the one that was repaired, or its like"
        )
    network = copy.deepcopy(model)
    put_weights(network, read_weights(path), path=path)
    return network.eval()
