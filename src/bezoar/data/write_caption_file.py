"""A table of image files and captions written back, with the files it names."""

from __future__ import annotations

import csv
from pathlib import Path

from bezoar.data.caption_files import CaptionFileReader
from bezoar.data.choice import Choice, png_name
from bezoar.errors import InputError


def write_caption_file(
    reader: CaptionFileReader, place: Path, choice: Choice, *, max_bytes: int
) -> int:
    """Write the rows that are kept, and their images.

    A row whose image cannot be read is left out.

    Args:
        reader: Of the set.
        place: The folder to make.
        choice: What becomes of each image.
        max_bytes: Larger files are left out unread.

    Returns:
        How many rows were written.
    """
    place.mkdir(parents=True)
    delimiter = "\t" if reader.path.suffix.lower() == ".tsv" else ","
    written = 0
    with (place / reader.path.name).open("w", encoding="utf-8", newline="") as file:
        table: csv.DictWriter[str] | None = None
        for record, row in zip(reader.records(), reader.rows(), strict=True):
            if table is None:
                table = csv.DictWriter(file, list(row), delimiter=delimiter)
                table.writeheader()
            if not choice.keeps(record.id) or record.path is None:
                continue
            name, data = row[reader.image_column], choice.png(record.id)
            if data is None:
                try:
                    data = record.read(max_bytes=max_bytes)
                except InputError:
                    continue  # it was listed as unreadable; there is nothing to copy
            else:
                name = png_name(name, is_taken=lambda n: (place / n).exists())
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
            table.writerow({**row, reader.image_column: name})
            written += 1
    return written
