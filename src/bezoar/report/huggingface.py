"""A detection as columns of a Hugging Face data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bezoar.errors import InputError
from bezoar.results import Detection

COLUMNS = (
    "bezoar_score",
    "bezoar_rank",
    "bezoar_p_value",
    "bezoar_flagged",
    "bezoar_reason",
)


def huggingface(found: Detection) -> Any:
    """Return a detection as a data set of its own: ids and what was found.

    Args:
        found: The detection.

    Returns:
        A ``datasets.Dataset``, one row per image in the order given.

    """
    from datasets import Dataset

    return Dataset.from_dict({"id": list(found.ids), **_columns(found)})


def add_columns(dataset: Any, found: Detection, *, ids: Sequence[str]) -> Any:
    """Return a data set with what was found as columns beside its own.

    Args:
        dataset: A ``datasets.Dataset``; it stays as it was.
        found: A detection on its images.
        ids: The id of each row, in order. For a set that bezoar read, these are its
            ids; rows that could not be read get empty cells.

    Returns:
        A new data set with the columns ``COLUMNS``.

    Raises:
        InputError: If the ids do not fit the rows or the detection, or a column is
            there already.
    """
    if len(ids) != len(dataset) or len(set(ids)) != len(ids):
        raise InputError(
            f"expected an id of its own for each of {len(dataset)} rows, got "
            f"{len(set(ids))}; give them in the order of the rows"
        )
    if lost := set(found.ids) - set(ids):
        raise InputError(
            f"expected the rows that were scored, got none for {len(lost)} such as "
            f"{min(lost)!r}; give the set that was scanned"
        )
    if taken := sorted(set(COLUMNS) & set(dataset.column_names)):
        raise InputError(
            f"expected a set without the columns {taken}, got them; remove them first"
        )
    place = {id_: i for i, id_ in enumerate(found.ids)}
    rows = [place.get(id_) for id_ in ids]
    for name, values in _columns(found).items():
        cells = [None if row is None else values[row] for row in rows]
        dataset = dataset.add_column(name, cells)
    return dataset


def _columns(found: Detection) -> dict[str, list[Any]]:
    n = len(found.ids)
    p_values = [math.nan] * n if found.p_values is None else found.p_values.tolist()
    values = (
        found.scores.tolist(),
        found.ranks.tolist(),
        [p if math.isfinite(p) else None for p in p_values],
        found.flagged.tolist(),
        list(found.reasons),
    )
    return dict(zip(COLUMNS, values, strict=True))
