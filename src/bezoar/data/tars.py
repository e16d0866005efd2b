"""Webdataset tars as a source of images."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bezoar.data.archives import IMAGE_FIELDS, Sample, is_plain, samples
from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes, find_classes
from bezoar.data.records import (
    NO_FILE,
    NO_LABEL,
    Record,
    escaped,
    is_text,
    too_large,
)
from bezoar.data.texts import captioned, raw_caption
from bezoar.errors import EmptyError

_LABEL_BYTES = 1 << 20
_LABEL_LETTERS = 200
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class TarReader:
    """The samples of webdataset tars that have an image.

    Attributes:
        root: The folder of the archives.
        shards: Their names below it, in the order in which they are read.
        image_column: Field of the images; None takes the first that is one.
        label_column: Field of the labels; None takes "cls", or "label" in "json".
        classes: What the labels mean.
        num_images: Samples of all archives.
        max_bytes: Larger images are refused unread.
        is_captioned: Whether every sample has to have a caption.
        text_column: Field, or key in "json", of the captions; None takes "txt", or a
            customary key.
    """

    root: Path
    shards: tuple[str, ...]
    image_column: str | None
    label_column: str | None
    classes: Classes
    num_images: int
    max_bytes: int
    is_captioned: bool = False
    text_column: str | None = None

    def records(self) -> Iterator[Record]:
        """Iterate over the samples.

        Yields:
            One record per sample with an image.
        """
        for shard in self.shards:
            with (self.root / shard).open("rb") as file:
                handle = file.fileno()
                for sample in samples(self.root / shard):
                    record = self._record(handle, shard, sample)
                    if record is not None:
                        yield record

    def _record(self, handle: int, shard: str, sample: Sample) -> Record | None:
        if sample.damage is not None:
            return Record(id=f"{shard}#", reason=sample.damage)
        field = sample.image_field(self.image_column)
        if field is None:
            return None
        member = sample.members[field]
        reason = _refusal(member, self.max_bytes)
        label = self.classes.label_of(raw_label(handle, sample, self.label_column))
        if label is None:
            label, reason = UNLABELLED, reason or NO_LABEL
        data = None if reason else os.pread(handle, member.size, member.offset_data)
        if data is not None and len(data) < member.size:
            data, reason = None, "truncated: the archive ends too early"
        id_ = escaped(f"{shard}#{sample.key}")
        record = Record(id=id_, label=label, data=data, reason=reason)
        if not self.is_captioned:
            return record
        return captioned(record, raw_caption(handle, sample, self.text_column))


def _refusal(member: tarfile.TarInfo, max_bytes: int) -> str | None:
    if not is_text(member.name):
        return "its name is not UTF-8"
    if not is_plain(member):
        return NO_FILE
    return too_large(member.size, max_bytes) if member.size > max_bytes else None


def raw_label(handle: int, sample: Sample, label_column: str | None) -> object:
    """Return the label of a sample as it is stored.

    Args:
        handle: The open archive.
        sample: The sample.
        label_column: The field of the labels; None takes "cls", or "label" in "json".

    Returns:
        A whole number or a text; None if there is none that can be read.
    """
    for field in ("cls", "json") if label_column is None else (label_column, "json"):
        member = sample.members.get(field)
        if member is None or not is_plain(member) or member.size > _LABEL_BYTES:
            continue
        text = os.pread(handle, member.size, member.offset_data)
        value = _parsed(text, None if field != "json" else label_column or "label")
        if value is not None:
            return value
    return None


def _parsed(text: bytes, name: str | None) -> int | str | None:
    # a name means an entry of JSON
    try:
        if name is None:
            word = text.decode().strip()
            return (
                int(word) if _WHOLE.fullmatch(word) else word[:_LABEL_LETTERS] or None
            )
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, dict) else None
    if isinstance(value, str):
        return value[:_LABEL_LETTERS]
    return value if isinstance(value, int) else None


def open_tars(
    root: Path,
    shards: Sequence[str],
    *,
    image_column: str | None,
    label_column: str | None,
    max_bytes: int,
) -> TarReader:
    """Return the reader of webdataset tars.

    Args:
        root: The folder of the archives.
        shards: Their names below it.
        image_column: The caller's choice of a field; None takes the first image.
        label_column: The caller's choice of a field; None takes "cls" or "json".
        max_bytes: Larger images are refused unread.

    Returns:
        A reader.

    Raises:
        EmptyError: If no sample has an image.
    """
    num_images = 0

    def labels() -> Iterator[tuple[str, object]]:
        nonlocal num_images
        for shard in shards:
            with (root / shard).open("rb") as file:
                for sample in samples(root / shard):
                    is_image = sample.image_field(image_column) is not None
                    num_images += is_image or sample.damage is not None
                    if is_image:
                        value = raw_label(file.fileno(), sample, label_column)
                        yield f"{shard}#{sample.key}", value

    classes = find_classes(labels())
    if num_images == 0:
        fields = ", ".join(IMAGE_FIELDS)
        raise EmptyError(
            f"expected images ({fields}) in {str(root / shards[0])!r}, found none; "
            "give another file"
        )
    return TarReader(
        root=root,
        shards=tuple(shards),
        image_column=image_column,
        label_column=label_column,
        classes=classes,
        num_images=num_images,
        max_bytes=max_bytes,
    )
