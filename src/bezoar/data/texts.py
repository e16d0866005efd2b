"""Where a set of pairs keeps its captions, and what counts as one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from bezoar.data.archives import Sample, is_plain
from bezoar.data.records import Record
from bezoar.errors import InputError

TEXT_NAMES = ("caption", "title", "text", "captions", "txt", "sentence", "description")
NO_CAPTION = "it has no caption that can be read"

_TEXT_BYTES = 1 << 20
_TEXT_LETTERS = 4096  # far beyond what any text tower reads


def caption_of(value: object) -> str | None:
    r"""Return a caption as one line, or None where there is none.

    Args:
        value: What a row holds: a text, or several, of which the first is taken.

    Returns:
        The text without blanks at its ends.

    Example:
        >>> caption_of([" a dog\n", "a hound"]), caption_of("  "), caption_of(3)
        ('a dog', None, None)
    """
    if isinstance(value, list | tuple):
        value = next(iter(value), None)
    if not isinstance(value, str):
        return None
    return " ".join(value[:_TEXT_LETTERS].split()) or None


def captioned(record: Record, value: object) -> Record:
    """Return a row with its caption.

    Args:
        record: The row.
        value: What it holds as a caption.

    Returns:
        The row; without a caption it counts as unreadable.
    """
    caption = caption_of(value)
    if caption is None:
        return replace(record, reason=record.reason or NO_CAPTION)
    return replace(record, caption=caption)


def with_captions(
    records: Iterable[Record], columns: Sequence[Sequence[object]]
) -> Iterator[Record]:
    """Iterate over rows with their captions.

    Args:
        records: The rows.
        columns: One column of captions, or none in a set without.

    Yields:
        The rows; as they are where there is no column.
    """
    if not columns:
        yield from records
        return
    for record, value in zip(records, columns[0], strict=True):
        yield captioned(record, value)


def find_text_column(
    schema: pa.Schema, *, where: str, text_column: str | None, taken: Sequence[str]
) -> str:
    """Find the column of the captions in a table.

    Args:
        schema: Of the table.
        where: The table, for messages.
        text_column: The caller's choice; None looks for a customary name, or takes the
            only column of texts.
        taken: Columns that hold images and labels.

    Returns:
        The column.

    Raises:
        InputError: If there is none, or several may be meant.
    """
    texts = [n for n in schema.names if n not in taken and _is_text(schema.field(n))]
    if text_column is not None:
        if text_column not in texts:
            raise InputError(
                f"expected captions in column {text_column!r} of {where}, got columns "
                f"of texts {', '.join(texts) or '(none)'}; correct text_column"
            )
        return text_column
    usual = [n for n in TEXT_NAMES if n in texts]
    found = usual[:1] or texts
    if len(found) != 1:
        raise InputError(
            f"expected one column of captions in {where}, got "
            f"{', '.join(texts) or 'none'}; name one with text_column"
        )
    return found[0]


def _is_text(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def raw_caption(handle: int, sample: Sample, text_column: str | None) -> object:
    """Return the caption of a sample of an archive as it is stored.

    Args:
        handle: The open archive.
        sample: The sample.
        text_column: A field, or a key in "json"; None takes "txt", or the first
            customary key in "json".

    Returns:
        What is there; None if there is nothing that can be read.
    """
    for field in ("txt", "text", "caption", "json"):
        name = text_column if text_column in sample.members else field
        member = sample.members.get(name or field)
        if member is None or not is_plain(member) or member.size > _TEXT_BYTES:
            continue
        data = os.pread(handle, member.size, member.offset_data)
        if name != "json":
            if text_column in (None, name):
                return data.decode("utf-8", "replace")
            continue
        return _from_json(data, text_column)
    return None


def _from_json(data: bytes, text_column: str | None) -> object:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    names = TEXT_NAMES if text_column is None else (text_column,)
    return next((found[n] for n in names if n in found), None)
