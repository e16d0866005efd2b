"""Data sets of the ``datasets`` library: saved in a folder, or on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bezoar.data.columns import (
    distinct_labels,
    find_columns,
    table_records,
)
from bezoar.data.labels import Classes, find_classes
from bezoar.data.records import Record, is_safe_name
from bezoar.data.texts import with_captions
from bezoar.errors import EmptyError, InputError

_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class SavedReader:
    """The rows of a data set that ``save_to_disk`` wrote.

    Attributes:
        root: The folder.
        folder: The folder of the split: ``root``, or one in it.
        split: Name of the split, the first part of the ids.
        image_column: Holds the image files.
        label_column: Holds the labels; None if there are none.
        classes: What the labels mean.
        num_images: How many rows there are.
        text_column: Holds the captions, in a set of pairs.
    """

    root: Path
    folder: Path
    split: str
    image_column: str
    label_column: str | None
    classes: Classes
    num_images: int
    text_column: str | None = None

    def records(self) -> Iterator[Record]:
        """Iterate over the rows.

        Yields:
            One record per row; the rows after a damaged place have a reason.
        """
        names = [n for n in (self.image_column, self.label_column) if n is not None]
        texts = [] if self.text_column is None else [self.text_column]
        row = 0
        try:
            for table in tables(self.folder, names + texts):
                parts = [table.column(n).combine_chunks() for n in names]
                told = [table.column(n).to_pylist() for n in texts]
                rows = table_records(self.split, row, parts, self.classes)
                yield from with_captions(rows, told)
                row += len(table)
        except pa.ArrowException as error:
            reason = f"the file is damaged from row {row} on ({error})"
            for lost in range(row, self.num_images):
                yield Record(id=f"{self.split}#{lost}", reason=reason)


def is_saved(root: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``.

    Args:
        root: The folder.

    Returns:
        True for one data set and for a dictionary of splits.
    """
    return (root / "dataset_dict.json").is_file() or (root / "state.json").is_file()


def open_saved(
    root: Path,
    *,
    split: str | None,
    image_column: str | None,
    label_column: str | None,
) -> SavedReader:
    """Return the reader of a data set that ``save_to_disk`` wrote.

    A folder that is damaged, lacks the split or a column, or names files outside it is
    an ``InputError``.

    Args:
        root: The folder.
        split: Which split; None takes the only one, or "train".
        image_column: The caller's choice; None looks for it.
        label_column: The caller's choice; None looks for it.

    Returns:
        A reader.

    Raises:
        EmptyError: If there are no rows.
    """
    folder, name = _split_folder(root, split)
    _check_files(folder)
    data = load(folder)
    columns = find_columns(
        data.features.arrow_schema,
        data.features,
        where=str(folder),
        image_column=image_column,
        label_column=label_column,
    )
    if len(data) == 0:
        raise EmptyError(
            f"expected images in {str(folder)!r}, found no rows; give another folder"
        )
    classes = Classes()
    if columns.label is not None:
        parts = _label_parts(folder, name, columns.label)
        classes = find_classes(distinct_labels(parts), declared=columns.declared)
    return SavedReader(
        root=root,
        folder=folder,
        split=name,
        image_column=columns.image,
        label_column=columns.label,
        classes=classes,
        num_images=len(data),
    )


def _split_folder(root: Path, split: str | None) -> tuple[Path, str]:
    if not (root / "dataset_dict.json").is_file():
        state = _json(root / "state.json")
        return root, str(state.get("_split") or split or "train")
    found = _json(root / "dataset_dict.json").get("splits")
    names = [n for n in found if isinstance(n, str)] if isinstance(found, list) else []
    wanted = split or (names[0] if len(names) == 1 else "train")
    if wanted not in names or not is_safe_name(wanted) or "/" in wanted:
        raise InputError(
            f"expected a split {wanted!r} in {str(root)!r}, got "
            f"{', '.join(names) or 'none'}; name one with split"
        )
    return root / wanted, wanted


def _check_files(folder: Path) -> None:
    # the library would open whatever files a description names
    files = _json(folder / "state.json").get("_data_files")
    names = [f.get("filename") for f in files or [] if isinstance(f, dict)]
    for name in names:
        inside = isinstance(name, str) and is_safe_name(name)
        target = (folder / str(name)).resolve()
        if not inside or folder.resolve() not in target.parents:
            raise InputError(
                f"expected data files inside {str(folder)!r}, got {name!r}; "
                "do not trust this data set"
            )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected a description at {str(path)!r}, got none that can be read "
            f"({error}); save the data set again"
        ) from error
    return found if isinstance(found, dict) else {}


def load(folder: Path) -> Any:
    """Map a saved data set into memory, without reading it.

    Args:
        folder: The folder of one split.

    Returns:
        A ``datasets.Dataset``.

    Raises:
        InputError: If it cannot be opened.
    """
    from datasets import load_from_disk  # its import takes a second

    try:
        return load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:  # whatever the library meets in a foreign description
        raise InputError(
            f"expected a saved data set in {str(folder)!r}, got one that cannot be "
            f"opened ({type(error).__name__}: {error}); save it again"
        ) from error


def tables(folder: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Iterate over a saved data set, some rows at a time.

    Args:
        folder: The folder of one split.
        columns: The columns to read; None reads all.

    Yields:
        Tables whose buffers were checked: the file may be anybody's.
    """
    data = load(folder).with_format("arrow")
    if columns is not None:
        data = data.select_columns(columns)
    for table in data.iter(batch_size=_ROWS):
        table.validate(full=True)
        yield table


def _label_parts(
    folder: Path, split: str, label: str
) -> Iterator[tuple[str, int, pa.Array]]:
    row = 0
    for table in tables(folder, [label]):
        yield split, row, table.column(label).combine_chunks()
        row += len(table)
