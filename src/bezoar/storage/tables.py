"""Tables on disk: parquet files whose bytes depend on their content alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from bezoar.errors import InputError, StorageError
from bezoar.files import atomic

Column: TypeAlias = Tensor | Sequence[object] | NDArray[Any]
ROWS_PER_GROUP = 1 << 17


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table as it was read.

    Attributes:
        columns: Numbers and booleans as tensors; texts, and whatever has empty cells
            (None), as lists.
        metadata: Texts that were stored beside the columns.
    """

    columns: Mapping[str, Tensor | list[object]]
    metadata: Mapping[str, str]


def write_table(
    path: Path,
    columns: Mapping[str, Column],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write columns of equal length to a parquet file, whole or not at all.

    Equal content gives equal bytes under one version of pyarrow: the compression is
    fixed, and there are no times, hosts or pandas indices in the file.

    Args:
        path: The file to write.
        columns: Tensors, arrays or lists by name; None in a list is an empty cell.
        metadata: Short texts to store beside the columns.

    Raises:
        InputError: If the lengths differ or a column mixes types or holds a text that
            is no Unicode; a ``StorageError`` follows a folder that cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "scores.parquet"
        >>> write_table(path, {"id": ["a", "b"], "score": torch.tensor([0.5, 0.25])})
        >>> read_table(path).columns
        {'id': ['a', 'b'], 'score': tensor([0.5000, 0.2500])}
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"expected columns of one length, got {lengths}; cut or fill")
    num_rows = max(lengths.values(), default=0)
    whole = {
        name: None if _is_text(column) else _arrow(name, column)
        for name, column in columns.items()
    }
    schema = pa.schema(
        [(name, pa.string() if a is None else a.type) for name, a in whole.items()],
        metadata=dict(metadata or {}),
    )
    with (
        atomic(path) as temporary,
        _open(temporary, "wb") as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            data_page_version="1.0",
        ) as writer,
    ):
        # Texts are copied a group at a time: of a million rows they take the most.
        for first in range(0, max(num_rows, 1), ROWS_PER_GROUP):
            rows = slice(first, first + ROWS_PER_GROUP)
            parts = [
                _arrow(name, columns[name][rows]) if a is None else a[rows]
                for name, a in whole.items()
            ]
            writer.write_table(pa.table(parts, schema=schema), ROWS_PER_GROUP)


def read_table(path: Path) -> Table:
    """Read a parquet file that :func:`write_table` wrote.

    Args:
        path: The file to read.

    Returns:
        Its columns, with the types they had, and its metadata.

    Raises:
        StorageError: If the file cannot be read or is damaged.
    """
    try:
        file = _open(path, "rb")
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(_refusal(path, words)) from error
    try:  # from here on an OSError means damage: arrow raises it for bad bytes too
        with file:
            table = pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
        return Table(
            columns={name: _column(table[name]) for name in table.column_names},
            metadata={
                k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()
            },
        )
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(_refusal(path, f"damage ({error})")) from error


def _open(path: Path, mode: str) -> pa.OSFile:
    # Arrow's own file: a thread of arrow that still holds bytes of Python when the
    # interpreter ends aborts the process (seen in one run out of eight).
    return pa.OSFile(os.fsencode(path), mode)


def _is_text(column: Column) -> bool:
    return (
        isinstance(column, list | tuple)
        and len(column) > 0
        and all(type(value) is str for value in column)
    )


def _arrow(name: str, column: Column) -> pa.Array:
    if isinstance(column, Tensor):
        column = column.detach().cpu()
        column = column.float() if column.dtype == torch.bfloat16 else column
        return pa.array(column.numpy())
    try:
        return pa.array(column)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(
            f"expected Unicode texts or numbers of one type in column {name!r}, got "
            f"others ({error}); rename the files or convert the column"
        ) from error


def _column(column: pa.ChunkedArray) -> Tensor | list[object]:
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if column.null_count > 0 or not (is_number or pa.types.is_boolean(kind)):
        values: list[object] = column.to_pylist()
        return values
    return torch.from_numpy(column.to_numpy().copy())


def _refusal(path: Path, found: str) -> str:
    return (
        f"expected a table in {str(path)!r}, got {found}; restore the file or run again"
    )
