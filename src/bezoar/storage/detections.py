"""A detection as a folder: a table, a report, lists for people, and masks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bezoar.data import Unreadable
from bezoar.errors import InputError, StorageError
from bezoar.files import atomic
from bezoar.results import ClassEvidence, Detection, Provenance, Verdict
from bezoar.storage.parts import as_tensor, built, checksum, write_csv
from bezoar.storage.plain import read_object, write_json
from bezoar.storage.tables import Column, read_table, write_table

COMMON = ("id", "path", "label", "score", "rank", "p_value", "flagged", "reason")
FORMAT = 1


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
    write_csv(
        folder / "unreadable.csv",
        ("id", "reason"),
        ((u.id, u.reason) for u in unreadable),
    )
    write_csv(
        folder / "removed.csv", ("id", "score", "reason"), _removed_rows(detection)
    )
    found = checksum(folder / "scores.parquet")
    write_json(
        folder / "report.json", {**report, "scores_blake2b": found, **(extra or {})}
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
    if report.get("scores_blake2b") != checksum(folder / "scores.parquet"):
        raise StorageError(
            f"expected scores.parquet and report.json of one run in {str(folder)!r}, "
            "got two that do not belong together; run the detection again"
        )
    masks, mask_ids = _read_masks(folder / "masks.safetensors")
    columns = table.columns
    try:
        p_values = as_tensor(columns["p_value"])
        return Detection(
            ids=tuple(cast("list[str]", columns["id"])),
            labels=as_tensor(columns["label"]),
            class_names=tuple(cast("list[str]", report["class_names"])),
            scores=as_tensor(columns["score"]),
            p_values=None if p_values.isnan().all() else p_values,
            flagged=as_tensor(columns["flagged"]),
            reasons=tuple(cast("list[str]", columns["reason"])),
            columns={k: as_tensor(v) for k, v in columns.items() if k not in COMMON},
            verdict=_verdict(report["verdict"]),
            provenance=built(Provenance, report["provenance"]),
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
        "path": _paths_of(detection.ids),
        "label": detection.labels,
        "score": detection.scores,
        "rank": detection.ranks,
        "p_value": unknown if detection.p_values is None else detection.p_values,
        "flagged": detection.flagged,
        "reason": detection.reasons,
        **detection.columns,
    }


def _paths_of(names: tuple[str, ...]) -> list[str]:
    paths: list[str] = []
    last = ""
    for path in map(_path_of, names):
        last = last if path == last else path  # the rows of one file share one text
        paths.append(last)
    return paths


def _path_of(name: str) -> str:
    # The file that an image is in: "a.tar#key" and "a.parquet#7" are rows of one.
    return re.sub(r"(\.tar)#.*|#\d+$", r"\1", name, flags=re.DOTALL)


def _removed_rows(detection: Detection) -> list[tuple[object, ...]]:
    flagged = detection.flagged.nonzero().flatten()
    order = detection.scores[flagged].argsort(descending=True, stable=True)
    worst_first = flagged[order]  # as the ranks of all say, at the cost of a few
    scores = detection.scores[worst_first].tolist()
    return [
        (detection.ids[i], score, detection.reasons[i])
        for i, score in zip(worst_first.tolist(), scores, strict=True)
    ]


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


def _verdict(plain: object) -> Verdict:
    values = dict(cast("dict[str, object]", plain))
    values["classes"] = tuple(
        built(ClassEvidence, item) for item in cast("list[object]", values["classes"])
    )
    return built(Verdict, values)
