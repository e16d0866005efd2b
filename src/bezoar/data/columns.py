"""Which columns of a table hold the images and their labels, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes
from bezoar.data.records import NO_LABEL, Record
from bezoar.errors import InputError

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo")
_LABEL_NAMES = ("label", "labels", "class", "target", "cls", "fine_label")
ONLY_PATH = "only a path, without the image; embed the bytes in the table"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table that matter here.

    Attributes:
        image: Holds the image files: bytes, or structs with a field ``bytes``.
        label: Holds the labels; None if there are none.
        declared: Class names by index that the table declares for its labels.
    """

    image: str
    label: str | None
    declared: tuple[str, ...] | None

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [self.image] if self.label is None else [self.image, self.label]


def features_of(schema: pa.Schema) -> Mapping[str, object]:
    """Return what the ``datasets`` library says of the columns of a table.

    Args:
        schema: Of the table; a description in its metadata counts.

    Returns:
        Features by column; none where the description cannot be understood.
    """
    from datasets import Features  # its import takes a second

    try:
        features: Mapping[str, object] = Features.from_arrow_schema(schema)
    except Exception:  # whatever a foreign description leads to; the types remain
        return {}
    return features


def find_columns(
    schema: pa.Schema,
    features: Mapping[str, object],
    *,
    where: str,
    image_column: str | None,
    label_column: str | None,
) -> Columns:
    """Find the columns of images and labels.

    The features come first, then types and customary names.

    Args:
        schema: Of the table.
        features: What the ``datasets`` library says of the columns.
        where: The table, for messages.
        image_column: The caller's choice; None looks for it.
        label_column: The caller's choice; None looks for it.

    Returns:
        The columns.

    Raises:
        InputError: If there is no such column, or several may be meant.
    """
    names: list[str] = schema.names
    images = [n for n in names if _holds_files(schema.field(n).type)]
    marked = [n for n in images if type(features.get(n)).__name__ == "Image"]
    image = _chosen(names, image_column, where, "image_column") or _likely(
        marked or images, _IMAGE_NAMES, where, "image_column"
    )
    if image not in images:
        raise InputError(
            f"expected a column of image files in {where}, got "
            f"{_described(schema, image)}; embed the bytes or give image_column"
        )
    marked = [n for n in names if type(features.get(n)).__name__ == "ClassLabel"]
    usual = [n for n in names if n in _LABEL_NAMES and _holds_labels(schema, n)]
    label = _chosen(names, label_column, where, "label_column") or _likely(
        marked or usual, _LABEL_NAMES, where, "label_column"
    )
    declared = getattr(features.get(label or ""), "names", None)
    return Columns(
        image=image, label=label, declared=tuple(declared) if declared else None
    )


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_files(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_number = types.is_integer(kind) or types.is_floating(kind)
    return bool(
        is_text or is_number or types.is_boolean(kind) or types.is_dictionary(kind)
    )


def _chosen(
    names: Sequence[str], choice: str | None, where: str, option: str
) -> str | None:
    if choice is not None and choice not in names:
        raise InputError(
            f"expected a column {choice!r} in {where}, got {', '.join(names)}; "
            f"correct {option}"
        )
    return choice


def _likely(
    candidates: Sequence[str], usual: Sequence[str], where: str, option: str
) -> str | None:
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    for name in usual:
        if name in candidates:
            return name
    raise InputError(
        f"expected one column to take in {where}, got {', '.join(candidates)}; "
        f"name one with {option}"
    )


def _described(schema: pa.Schema, name: str | None) -> str:
    names = schema.names if name is None else [name]
    return ", ".join(f"{n} ({schema.field(n).type})" for n in names) or "no column"


def distinct_labels(
    columns: Iterable[tuple[str, int, pa.Array]],
) -> Iterator[tuple[str, object]]:
    """Iterate over the different labels of a table.

    Args:
        columns: The name of a shard, the row that its part starts at, and the labels.

    Yields:
        The id of the first row that has a label, and the label.
    """
    seen: set[object] = set()
    for shard, first, labels in columns:
        for row, value in enumerate(labels.to_pylist(), start=first):
            key = repr(value) if isinstance(value, list | dict) else value
            if value is not None and key not in seen:
                seen.add(key)
                yield f"{shard}#{row}", value


def table_records(
    shard: str, first: int, columns: Sequence[pa.Array], classes: Classes
) -> Iterator[Record]:
    """Iterate over the rows of a part of a table.

    Args:
        shard: Name of the shard, the first part of the ids.
        first: The row that the part starts at.
        columns: The images, and the labels if there are any.
        classes: What the labels mean.

    Yields:
        One record per row.
    """
    files = file_bytes(columns[0]).to_pylist()
    values = columns[1].to_pylist() if len(columns) > 1 else [None] * len(files)
    for row, (data, value) in enumerate(zip(files, values, strict=True), start=first):
        label = classes.label_of(value)
        reason = None if data is not None else ONLY_PATH
        yield Record(
            id=f"{shard}#{row}",
            label=UNLABELLED if label is None else label,
            data=data,
            reason=reason if label is not None else NO_LABEL,
        )


def file_bytes(images: pa.Array) -> pa.Array:
    """Return the bytes of a column of image files.

    Args:
        images: The column: bytes, or structs with a field ``bytes``.

    Returns:
        The bytes; null where a row holds none.
    """
    return (
        pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
    )
