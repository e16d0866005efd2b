"""Data sets on the Hub, read as a stream: nothing is stored on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bezoar.data.columns import ONLY_PATH, find_columns
from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes
from bezoar.data.records import NO_LABEL, Record
from bezoar.errors import InputError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class HubReader:
    """The rows of a data set on the Hub.

    Attributes:
        name: Owner and name on the Hub.
        split: Which split; the first part of the ids.
        image_column: Holds the image files.
        label_column: Holds the labels; None if there are none.
        classes: What the labels mean.
        num_images: How many rows there are; None if the Hub does not say.
    """

    name: str
    split: str
    image_column: str
    label_column: str | None
    classes: Classes
    num_images: int | None

    def records(self) -> Iterator[Record]:
        """Iterate over the rows.

        Yields:
            One record per row.

        Raises:
            InputError: If a label is outside the declared names.
        """
        allowed = range(len(self.classes.names)) or (UNLABELLED,)
        for index, (row, data, missing) in enumerate(rows(self)):
            id_ = f"{self.split}#{index}"
            label = self.classes.label_of(row.get(self.label_column or ""))
            if label is not None and label not in allowed:
                raise InputError(
                    f"expected labels from 0 to {len(allowed) - 1}, got {label} for "
                    f"{id_!r}; correct the label or name all the classes"
                )
            yield Record(
                id=id_,
                label=UNLABELLED if label is None else label,
                data=data,
                reason=NO_LABEL if label is None else missing,
            )


def is_hub_id(spec: str) -> bool:
    """Whether a text can be the id of a data set on the Hub.

    Args:
        spec: What the caller gave; no such path exists.

    Returns:
        True for an owner and a name that does not look like a file.

    Example:
        >>> is_hub_id("owner/name"), is_hub_id("a/b/c"), is_hub_id("photos/a.tar")
        (True, False, False)
    """
    return _ID.fullmatch(spec) is not None and not spec.endswith((".parquet", ".tar"))


def open_hub(
    name: str, *, split: str, image_column: str | None, label_column: str | None
) -> HubReader:
    """Return the reader of a data set on the Hub.

    Args:
        name: Owner and name.
        split: Which split.
        image_column: The caller's choice; None looks for it.
        label_column: The caller's choice; None looks for it.

    Returns:
        A reader.

    Raises:
        InputError: If it does not declare its columns, or has labels without names: a
            stream cannot be searched for them.
    """
    data = open_stream(name, split)
    if data.features is None:
        raise InputError(
            f"expected a data set that declares its columns, got {name!r} without; "
            "download it and give its files"
        )
    columns = find_columns(
        data.features.arrow_schema,
        data.features,
        where=name,
        image_column=image_column,
        label_column=label_column,
    )
    if columns.label is not None and columns.declared is None:
        raise InputError(
            f"expected class names with column {columns.label!r} of {name!r}, got "
            "none; download the data set and give its files"
        )
    splits: Mapping[str, Any] = data.info.splits or {}
    return HubReader(
        name=name,
        split=split,
        image_column=columns.image,
        label_column=columns.label,
        classes=Classes(names=columns.declared or ()),
        num_images=getattr(splits.get(split), "num_examples", None),
    )


def rows(
    reader: HubReader,
) -> Iterator[tuple[dict[str, Any], bytes | None, str | None]]:
    """Iterate over a data set on the Hub with its images as they are stored.

    Args:
        reader: Of the set.

    Yields:
        One row as a dictionary of its columns, the bytes of its image, and the reason
        if there are none.

    Raises:
        InputError: If the connection breaks.
    """
    from datasets import Image

    data = open_stream(reader.name, reader.split)
    for column, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(column, Image(decode=False))
    done = 0
    try:
        for row in data:
            yield (row, *_file(row[reader.image_column], reader.name))
            done += 1
    except OSError as error:  # every error of a connection is one
        raise InputError(
            f"expected more rows of {reader.name!r} after row {done}, got {error}; "
            "start again when the Hub can be reached: finished blocks are kept"
        ) from error


def open_stream(name: str, split: str) -> Any:
    """Open a data set on the Hub.

    Args:
        name: Owner and name.
        split: Which split.

    Returns:
        A ``datasets.IterableDataset``.

    Raises:
        InputError: If it cannot be reached or has no such split.
    """
    from datasets import load_dataset  # its import takes a second

    try:
        return load_dataset(name, split=split, streaming=True)
    except Exception as error:  # the library raises many kinds, down to the network's
        raise InputError(
            f"expected a folder, a file or the id of a data set on the Hub, got "
            f"{name!r}: no such path, and the Hub gave none ({error}); correct the "
            "name or the connection"
        ) from error


def _file(value: Any, name: str) -> tuple[bytes | None, str | None]:
    """Return the bytes of one image; a path is followed into the same data set only."""
    if isinstance(value, bytes):
        return value, None
    data, path = (value or {}).get("bytes"), (value or {}).get("path")
    if data is not None or not isinstance(path, str):
        return data, None if data is not None else ONLY_PATH
    if not path.startswith((f"hf://datasets/{name}@", f"hf://datasets/{name}/")):
        return None, ONLY_PATH
    import fsspec  # type: ignore[import-untyped]  # datasets needs it and adds hf://

    try:
        with fsspec.open(path, "rb") as file:
            return file.read(), None
    except OSError as error:
        return None, f"cannot be fetched ({error})"
