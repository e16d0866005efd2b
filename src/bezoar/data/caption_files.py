"""Tables of image files and captions: ``filepath,title``, with commas or tabs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes, find_classes
from bezoar.data.records import NO_LABEL, Record, escaped, is_text
from bezoar.data.texts import TEXT_NAMES, captioned
from bezoar.errors import EmptyError, InputError

CAPTION_SUFFIXES = frozenset((".csv", ".tsv"))

_PATH_NAMES = ("filepath", "image", "file_name", "filename", "file", "path", "img")
_LABEL_NAMES = ("label", "class", "target")
_LEAVES = "a path that leaves the folder of the table"


@dataclass(frozen=True, kw_only=True)
class CaptionFileReader:
    """The rows of a table of image files and captions.

    Attributes:
        path: The table; images lie in its folder or below.
        image_column: Holds the paths of the images.
        text_column: Holds the captions.
        label_column: Holds the labels; None if there are none.
        classes: What the labels mean.
        num_images: How many rows there are.
    """

    path: Path
    image_column: str
    text_column: str
    label_column: str | None
    classes: Classes
    num_images: int

    def rows(self) -> Iterator[dict[str, str]]:
        """Iterate over the rows as they are written.

        Returns:
            Cells by column, one row per record.
        """
        return _rows(self.path)

    def records(self) -> Iterator[Record]:
        """Iterate over the rows.

        Yields:
            One record per row. Its id is that of a column "id", or the path as it is
            written; where it comes again, as with several captions of an image, the
            row is added.
        """
        inside = os.path.realpath(self.path.parent)
        seen: set[int] = set()  # hashes: the paths of millions of rows would not fit
        for row, values in enumerate(_rows(self.path)):
            name = values.get(self.image_column) or ""
            id_ = values.get("id") or name or f"#{row}"
            id_ = f"{id_}#{row}" if hash(id_) in seen else id_
            seen.add(hash(id_))
            label = self.classes.label_of(values.get(self.label_column or ""))
            path, reason = _inside(inside, name)
            record = Record(
                id=escaped(id_),
                label=UNLABELLED if label is None else label,
                path=path,
                reason=reason or (NO_LABEL if label is None else None),
            )
            yield captioned(record, values.get(self.text_column))


def open_caption_file(
    path: Path,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> CaptionFileReader:
    """Return the reader of a table of image files and captions.

    Args:
        path: A file that ends in .csv or .tsv, with names in its first row.
        image_column: The column of the paths; None looks for it.
        text_column: The column of the captions; None looks for it.
        label_column: The column of class labels; None looks for it.

    Returns:
        A reader.

    Raises:
        EmptyError: If there are no rows.
    """
    names = _names(path)
    image = _column(names, image_column, _PATH_NAMES, path, "image_column")
    text = _column(names, text_column, TEXT_NAMES, path, "text_column")
    usual = next((n for n in _LABEL_NAMES if n in names), None)
    label = label_column or usual
    if label is not None:
        label = _column(names, label, (), path, "label_column")
    count = 0

    def labels() -> Iterator[tuple[str, object]]:
        nonlocal count
        for row, values in enumerate(_rows(path)):
            count += 1
            if label is not None:
                yield f"{path.name}#{row}", values.get(label) or None

    classes = find_classes(labels())
    if count == 0:
        raise EmptyError(
            f"expected rows of images and captions in {str(path)!r}, found none; give "
            "another table"
        )
    return CaptionFileReader(
        path=path,
        image_column=image,
        text_column=text,
        label_column=label,
        classes=classes,
        num_images=count,
    )


def _names(path: Path) -> Sequence[str]:
    try:
        return next(_parsed(path), [])
    except (OSError, csv.Error) as error:
        raise InputError(
            f"expected a table at {str(path)!r}, got one that cannot be read "
            f"({error}); repair it"
        ) from error


def _rows(path: Path) -> Iterator[dict[str, str]]:
    rows = _parsed(path)
    names = next(rows, [])
    for values in rows:
        if values:  # an empty line is no row
            yield dict(zip(names, values, strict=False))


def _parsed(path: Path) -> Iterator[list[str]]:
    # Bytes that are no UTF-8 come as lone surrogates, as in names of files.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
        file.seek(0)
        is_tabbed = path.suffix.lower() == ".tsv" or "\t" in first
        yield from csv.reader(file, delimiter="\t" if is_tabbed else ",")


def _column(
    names: Sequence[str],
    choice: str | None,
    usual: Sequence[str],
    path: Path,
    option: str,
) -> str:
    wanted = usual if choice is None else (choice,)
    found = next((n for n in wanted if n in names), None)
    if found is None:
        shown = ", ".join(names[:12]) or "no names"
        raise InputError(
            f"expected a column {' or '.join(map(repr, wanted))} in the first row of "
            f"{path.name}, got {shown}; name it with {option}"
        )
    return found


def _inside(folder: str, name: str) -> tuple[Path | None, str | None]:
    if not name:
        return None, "it has no path"
    if not is_text(name) or "\0" in name:
        return None, "its path is not UTF-8"
    target = os.path.realpath(os.path.join(folder, name))
    if os.path.commonpath([target, folder]) != folder:
        return None, _LEAVES
    return Path(target), None
