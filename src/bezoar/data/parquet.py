"""Parquet files with the bytes of images in a column.

Rows are read by pyarrow, which the ``datasets`` library calls too, for three reasons:
the library holds a row group several times in memory, leaves lock files in the user's
home, and ends at a damaged page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bezoar.data.columns import (
    distinct_labels,
    features_of,
    find_columns,
    table_records,
)
from bezoar.data.labels import Classes, find_classes
from bezoar.data.records import Record
from bezoar.data.texts import with_captions
from bezoar.errors import EmptyError, InputError

_BATCH_BYTES = 16 << 20
_ROWS_PER_BYTE = 1000  # more than any image that comes again and again has
_BATCH_ROWS = 8  # some bytes in a file may unpack to half a gigabyte a value


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """The rows of parquet files.

    Attributes:
        root: The folder of the files.
        shards: Their names below it, in the order in which they are read.
        image_column: Holds the image files.
        label_column: Holds the labels; None if there are none.
        classes: What the labels mean.
        num_images: Rows of all files.
        text_column: Holds the captions, in a set of pairs.
    """

    root: Path
    shards: tuple[str, ...]
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
        for shard in self.shards:
            row = 0
            try:
                for batch in batches(self.root / shard, names + texts):
                    columns = [batch.column(n) for n in names]
                    told = [batch.column(n).to_pylist() for n in texts]
                    rows = table_records(shard, row, columns, self.classes)
                    yield from with_captions(rows, told)
                    row += len(batch)
            except (pa.ArrowException, OSError) as error:
                reason = f"the file is damaged from row {row} on ({_words(error)})"
                for lost in range(row, num_rows(self.root / shard)):
                    yield Record(id=f"{shard}#{lost}", reason=reason)


def open_parquet(
    root: Path,
    shards: Sequence[str],
    *,
    image_column: str | None,
    label_column: str | None,
) -> ParquetReader:
    """Return the reader of parquet files.

    Args:
        root: The folder of the files.
        shards: Their names below it.
        image_column: The caller's choice; None looks for it.
        label_column: The caller's choice; None looks for it.

    Returns:
        A reader.

    Raises:
        InputError: If a file is damaged, lacks a column or differs from the others.
        EmptyError: If there are no rows.
    """
    schemas = [schema_of(root / shard) for shard in shards]
    columns = find_columns(
        schemas[0],
        features_of(schemas[0]),
        where=shards[0],
        image_column=image_column,
        label_column=label_column,
    )
    for shard, schema in zip(shards, schemas, strict=True):
        for name in columns.names:
            if schema.get_field_index(name) < 0 or (
                schema.field(name).type != schemas[0].field(name).type
            ):
                raise InputError(
                    f"expected column {name!r} in {shard} as in {shards[0]}, got "
                    f"{', '.join(schema.names)}; open the files one by one"
                )
    num_images = sum(_checked_rows(root / shard) for shard in shards)
    if num_images == 0:
        raise EmptyError(
            f"expected images in {shards[0]}, found no rows; give another file"
        )
    classes = Classes()
    if columns.label is not None:
        found = distinct_labels(_label_parts(root, shards, columns.label))
        classes = find_classes(found, declared=columns.declared)
    return ParquetReader(
        root=root,
        shards=tuple(shards),
        image_column=columns.image,
        label_column=columns.label,
        classes=classes,
        num_images=num_images,
    )


def batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Iterate over a parquet file without holding its row groups in memory.

    Args:
        path: The file.
        columns: The columns to read; None reads all.

    Yields:
        Some rows at a time, about 16 MB.
    """
    # without pre_buffer and with a buffer, a column is read page by page
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        size = sum(
            file.metadata.row_group(i).total_byte_size
            for i in range(file.metadata.num_row_groups)
        )
        rows = _BATCH_BYTES * file.metadata.num_rows // max(size, 1)
        yield from file.iter_batches(
            batch_size=min(max(rows, 1), _BATCH_ROWS),
            columns=columns,
            use_threads=False,
        )


def num_rows(path: Path) -> int:
    """Return how many rows a parquet file has.

    Args:
        path: The file.

    Returns:
        The number in its footer.
    """
    return int(pq.read_metadata(path).num_rows)


def _checked_rows(path: Path) -> int:
    # A row that is lost is listed: a footer must not make us list for ever.
    found, size = pq.read_metadata(path), path.stat().st_size
    groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != found.num_rows:
        told = f"{found.num_rows:,} rows in all and {sum(groups):,} in its parts"
    elif found.num_rows > _ROWS_PER_BYTE * size:
        told = f"{found.num_rows:,} rows in {size:,} bytes"
    else:
        return int(found.num_rows)
    raise InputError(
        f"expected a parquet file that tells the truth at {str(path)!r}, got one that "
        f"claims {told}; do not trust it"
    )


def schema_of(path: Path) -> pa.Schema:
    """Return the schema of a parquet file.

    Args:
        path: The file.

    Returns:
        The schema, with what its metadata say.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"expected a parquet file at {str(path)!r}, got one that cannot be read "
            f"({_words(error)}); take it out or repair it"
        ) from error


def _label_parts(
    root: Path, shards: Sequence[str], label: str
) -> Iterator[tuple[str, int, pa.Array]]:
    for shard in shards:
        row = 0
        try:
            for batch in batches(root / shard, [label]):
                yield shard, row, batch.column(0)
                row += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"expected labels in column {label!r} of {shard}, got damage from row "
                f"{row} on ({_words(error)}); repair the file"
            ) from error


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
