"""Tables written back: parquet files, saved data sets, and sets from the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bezoar.data.choice import Choice, png_name
from bezoar.data.columns import file_bytes
from bezoar.data.hub import HubReader, open_stream, rows
from bezoar.data.parquet import ParquetReader, batches
from bezoar.data.saved import SavedReader, load, tables

_ROWS = 64


def write_parquet(
    reader: ParquetReader, targets: Mapping[str, Path], choice: Choice
) -> int:
    """Write parquet files with the columns and the schema they have.

    Args:
        reader: Of the set.
        targets: Where each shard goes.
        choice: What becomes of each image.

    Returns:
        How many images were written.
    """
    written = 0
    for shard, target in targets.items():
        path = reader.root / shard
        schema = pq.read_schema(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(target, schema, use_dictionary=False) as writer:
            parts = _undamaged(batches(path))
            for part in _chosen(parts, shard, reader.image_column, choice):
                writer.write_batch(part)
                written += len(part)
    return written


def _undamaged(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield what comes before a damaged place; the rows after it hold no file."""
    try:
        yield from parts
    except (pa.ArrowException, OSError):
        return


def _chosen(
    parts: Iterable[pa.RecordBatch], shard: str, image_column: str, choice: Choice
) -> Iterator[pa.RecordBatch]:
    first = 0
    for part in parts:
        files = file_bytes(part.column(image_column))
        ids = [f"{shard}#{row}" for row in range(first, first + len(part))]
        keep = [choice.keeps(i) and f.is_valid for i, f in zip(ids, files, strict=True)]
        pngs = [choice.png(i) if k else None for i, k in zip(ids, keep, strict=True)]
        is_new = any(png is not None for png in pngs)
        fresh = _with_files(part, image_column, pngs) if is_new else part
        yield fresh.filter(pa.array(keep, pa.bool_()))
        first += len(part)


def _with_files(
    part: pa.RecordBatch, image_column: str, pngs: list[bytes | None]
) -> pa.RecordBatch:
    index = part.schema.get_field_index(image_column)
    column = part.column(index)
    values = column.to_pylist()
    for row, png in enumerate(pngs):
        if png is not None and isinstance(values[row], dict):
            values[row] |= {"bytes": png}
            if isinstance(path := values[row].get("path"), str):
                values[row]["path"] = png_name(path, is_taken=lambda _: False)
        elif png is not None:
            values[row] = png
    column = pa.array(values, type=column.type)
    return part.set_column(index, part.schema.field(index), column)


def write_saved(reader: SavedReader, place: Path, choice: Choice) -> int:
    """Write a data set as ``save_to_disk`` does.

    Args:
        reader: Of the set.
        place: The folder to make; of several splits it has the one that was read.
        choice: What becomes of each image.

    Returns:
        How many images were written.
    """
    from datasets import Dataset, DatasetDict, NamedSplit

    source = load(reader.folder)
    scratch = place.with_name("scratch.arrow")
    schema, written = source.features.arrow_schema, 0
    parts = (
        batch
        for table in tables(reader.folder)
        for batch in table.combine_chunks().to_batches()
    )
    with pa.OSFile(str(scratch), "wb") as file, pa.ipc.new_stream(file, schema) as sink:
        for part in _chosen(parts, reader.split, reader.image_column, choice):
            sink.write_batch(part.cast(schema))
            written += len(part)
    if written == 0:
        return 0
    split = NamedSplit(reader.split)
    data = Dataset.from_file(str(scratch), info=source.info.copy(), split=split)
    with _no_progress_bars():
        if reader.folder == reader.root:
            data.save_to_disk(str(place))
        else:
            DatasetDict({reader.split: data}).save_to_disk(str(place))
    return written


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the library silent, and leave its setting as it was."""
    import datasets

    were_off = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()


def write_hub(reader: HubReader, place: Path, choice: Choice) -> int:
    """Write a data set from the Hub as a parquet file with its columns.

    Args:
        reader: Of the set.
        place: The folder to make.
        choice: What becomes of each image.

    Returns:
        How many images were written.
    """
    schema = open_stream(reader.name, reader.split).features.arrow_schema
    place.mkdir()
    written = 0
    with pq.ParquetWriter(place / f"{reader.split}.parquet", schema) as writer:
        for part in _chosen(
            _gathered(reader, schema), reader.split, reader.image_column, choice
        ):
            writer.write_batch(part)
            written += len(part)
    return written


def _gathered(reader: HubReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    some: list[dict[str, object]] = []
    for row, data, _ in rows(reader):
        if isinstance(value := row[reader.image_column], dict):
            row[reader.image_column] = value | {"bytes": data}
        some.append(row)
        if len(some) == _ROWS:
            yield pa.RecordBatch.from_pylist(some, schema=schema)
            some = []
    if some:
        yield pa.RecordBatch.from_pylist(some, schema=schema)
