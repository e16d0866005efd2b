"""Webdataset tars written back, member by member."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from bezoar.data.archives import Sample, is_plain, samples
from bezoar.data.choice import Choice, png_name
from bezoar.data.records import escaped, is_safe_name, is_text
from bezoar.data.tars import TarReader
from bezoar.errors import InputError

_LATEST = 1 << 33  # seconds; what a tar header holds


def write_tars(reader: TarReader, targets: Mapping[str, Path], choice: Choice) -> int:
    """Write archives with the members they have; links and devices are left out.

    A member whose name leaves the archive is an ``InputError``.

    Args:
        reader: Of the set.
        targets: Where each shard goes.
        choice: What becomes of each image.

    Returns:
        How many images were written.
    """
    written = 0
    for shard, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        path = reader.root / shard
        with path.open("rb") as old, tarfile.open(target, "w") as new:
            for sample in samples(path):
                written += _write_sample(sample, old, new, shard, reader, choice)
    return written


def _write_sample(
    sample: Sample,
    old: BinaryIO,
    new: tarfile.TarFile,
    shard: str,
    reader: TarReader,
    choice: Choice,
) -> bool:
    field = sample.image_field(reader.image_column)
    png = None
    if field is not None:
        id_ = escaped(f"{shard}#{sample.key}")
        if not choice.keeps(id_) or not _is_whole(sample.members[field], old):
            return False
        png = choice.png(id_)
    for name, member in sample.members.items():
        if not _is_whole(member, old):
            continue
        if not is_safe_name(member.name.removeprefix("./")):
            raise InputError(
                f"expected names inside the archive {shard!r}, got {member.name!r}; "
                "drop that member"
            )
        if png is not None and name == field:
            new.addfile(*_as_png(member, png, sample))
        else:
            old.seek(member.offset_data)
            new.addfile(_header(member), old)
    return field is not None


def _is_whole(member: tarfile.TarInfo, old: BinaryIO) -> bool:
    end = member.offset_data + member.size
    return is_text(member.name) and is_plain(member) and old.seek(0, 2) >= end


def _header(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a header with the name, size, time and mode alone: no owner, no extras."""
    header = tarfile.TarInfo(member.name)
    header.size = member.size
    header.mode = member.mode & 0o777
    header.mtime = member.mtime if 0 <= member.mtime < _LATEST else 0
    return header


def _as_png(
    member: tarfile.TarInfo, png: bytes, sample: Sample
) -> tuple[tarfile.TarInfo, BytesIO]:
    names = {other.name for other in sample.members.values()}
    fresh = png_name(member.name, is_taken=lambda _: False)
    header = _header(member)
    header.name = member.name if fresh in names else fresh
    header.size = len(png)
    return header, BytesIO(png)
