"""A detection as a folder: a table, a report, lists for people, and masks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar, cast, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bezoar.data import Unreadable
from bezoar.errors import InputError, StorageError
from bezoar.files import atomic
from bezoar.results import ClassEvidence, Detection, Provenance, Verdict
from bezoar.storage.plain import read_object, write_json
from bezoar.storage.tables import Column, read_table, write_table

COMMON = ("id", "path", "label", "score", "rank", "p_value", "flagged", "reason")
FORMAT = 1
_Result = TypeVar("_Result", Verdict, ClassEvidence, Provenance)


def check_column_names(names: Iterable[str]) -> None:
    """Check that a method's raw columns can stand beside the common ones.

    Args:
        names: Names of the raw columns.

    Raises:
        InputError: If one has the name of a common column.
    """
    if taken := sorted(set(names) & set(COMMON)):
        raise InputError(
            f"expected raw columns with names of their own, got {taken}; rename them"
        )


def save_detection(
    detection: Detection,
    folder: Path,
    *,
    unreadable: Sequence[Unreadable] = (),
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a detection to a folder.

    ``scores.parquet`` has one row per image, ``report.json`` the verdict and how it
    came about, ``removed.csv`` the flagged images, ``unreadable.csv`` those that were
    not scored, ``masks.safetensors`` the masks if there are any.

    Args:
        detection: What to write.
        folder: Where to; made if it is missing. Files of these names are replaced.
        unreadable: Images that could not be read, with the reasons.
        extra: More plain values for ``report.json``, under keys of their own.

    Raises:
        InputError: If a raw column or a key of ``extra`` has a name that is taken; a
            ``StorageError`` follows a folder that cannot be written.
    """
    check_column_names(detection.columns)
    report = {
        "format": FORMAT,
        "num_images": len(detection.ids),
        "num_unreadable": len(unreadable),
        "class_names": detection.class_names,
        "verdict": detection.verdict,
        "provenance": detection.provenance,
    }
    if taken := sorted(report.keys() & (extra or {}).keys()):
        raise InputError(f"expected other keys in extra than {taken}; rename them")
    write_table(folder / "scores.parquet", _score_columns(detection))
    _write_masks(folder / "masks.safetensors", detection)
    _write_csv(
        folder / "unreadable.csv",
        ("id", "reason"),
        ((u.id, u.reason) for u in unreadable),
    )
    _write_csv(
        folder / "removed.csv", ("id", "score", "reason"), _removed_rows(detection)
    )
    checksum = _checksum(folder / "scores.parquet")
    write_json(
        folder / "report.json", {**report, "scores_blake2b": checksum, **(extra or {})}
    )


def load_detection(folder: Path) -> Detection:
    """Read a detection that :func:`save_detection` wrote.

    Args:
        folder: The folder that was written.

    Returns:
        The same detection; infinite figures in its verdict come back as NaN.

    Raises:
        StorageError: If a file is missing or damaged, or table and report are not of
            one run.
    """
    report = read_object(folder / "report.json")
    table = read_table(folder / "scores.parquet")
    if report.get("scores_blake2b") != _checksum(folder / "scores.parquet"):
        raise StorageError(
            f"expected scores.parquet and report.json of one run in {str(folder)!r}, "
            "got two that do not belong together; run the detection again"
        )
    masks, mask_ids = _read_masks(folder / "masks.safetensors")
    columns = table.columns
    try:
        p_values = _tensor(columns["p_value"])
        return Detection(
            ids=tuple(cast("list[str]", columns["id"])),
            labels=_tensor(columns["label"]),
            class_names=tuple(cast("list[str]", report["class_names"])),
            scores=_tensor(columns["score"]),
            p_values=None if p_values.isnan().all() else p_values,
            flagged=_tensor(columns["flagged"]),
            reasons=tuple(cast("list[str]", columns["reason"])),
            columns={k: _tensor(v) for k, v in columns.items() if k not in COMMON},
            verdict=_verdict(report["verdict"]),
            provenance=_build(Provenance, report["provenance"]),
            masks=masks,
            mask_ids=mask_ids,
        )
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"expected a detection of format {FORMAT} in {str(folder)!r}, got another "
            f"({error}); load it with the version of bezoar that wrote it"
        ) from error


def _score_columns(detection: Detection) -> dict[str, Column]:
    unknown = torch.full_like(detection.scores, math.nan)
    return {
        "id": detection.ids,
        "path": [_path_of(name) for name in detection.ids],
        "label": detection.labels,
        "score": detection.scores,
        "rank": detection.ranks,
        "p_value": unknown if detection.p_values is None else detection.p_values,
        "flagged": detection.flagged,
        "reason": detection.reasons,
        **detection.columns,
    }


def _path_of(name: str) -> str:
    # The file that an image is in: "a.tar#key" and "a.parquet#7" are rows of one.
    return re.sub(r"(\.tar)#.*|#\d+$", r"\1", name, flags=re.DOTALL)


def _removed_rows(detection: Detection) -> list[tuple[object, ...]]:
    flagged = detection.flagged.nonzero().flatten()
    worst_first = flagged[detection.ranks[flagged].argsort()]
    scores = detection.scores.tolist()
    return [
        (detection.ids[i], scores[i], detection.reasons[i])
        for i in worst_first.tolist()
    ]


def _write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # lines end in \r\n: only so is a \r in a name quoted
    writer.writerow(header)
    for row in rows:
        writer.writerow([_harmless(cell) for cell in row])
    with atomic(path) as temporary:
        temporary.write_bytes(text.getvalue().encode(errors="backslashreplace"))


def _harmless(cell: object) -> object:
    # Spreadsheets run a cell that starts so as a formula; a file name is not ours.
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + cell
    return cell


def _write_masks(path: Path, detection: Detection) -> None:
    if detection.masks is None:
        path.unlink(missing_ok=True)  # masks of an earlier run would be misread
        return
    metadata = {"mask_ids": json.dumps(detection.mask_ids)}
    with atomic(path) as temporary:
        save_file({"masks": detection.masks.contiguous()}, temporary, metadata)


def _read_masks(path: Path) -> tuple[Tensor | None, tuple[str, ...]]:
    if not path.exists():
        return None, ()
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("masks"), tuple(
                json.loads(file.metadata()["mask_ids"])
            )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"expected masks in {str(path)!r}, got damage ({error}); remove the file "
            "or run the detection again"
        ) from error


def _tensor(column: Tensor | list[object]) -> Tensor:
    if isinstance(column, Tensor):
        return column
    raise TypeError("a column of numbers has empty cells")


def _verdict(plain: object) -> Verdict:
    values = dict(cast("dict[str, object]", plain))
    values["classes"] = tuple(
        _build(ClassEvidence, item) for item in cast("list[object]", values["classes"])
    )
    return _build(Verdict, values)


def _build(cls: type[_Result], plain: object) -> _Result:
    values = {
        key: _frozen(value) for key, value in cast("dict[str, object]", plain).items()
    }
    hints = get_type_hints(cls)
    for field in fields(cls):
        if hints[field.name] is float and values[field.name] is None:  # JSON has no NaN
            values[field.name] = math.nan
    return cls(**values)  # type: ignore[arg-type]


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.blake2b(digest_size=16)
            ).hexdigest()
    except OSError as error:
        raise StorageError(
            f"expected {path.name!r} in {str(path.parent)!r}, got "
            f"{error.strerror or error}; give the folder of a run"
        ) from error
