"""Samples in webdataset tars: members of an archive that share a key.

The archives are read here, not by the ``datasets`` library: its reader stops at the
first label that is no number, unpacks compressed and sparse members of any size, and
decodes what ``write_source`` must copy byte for byte. Nothing is ever extracted.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bezoar.errors import InputError

IMAGE_FIELDS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm", "gif")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Members of an archive that follow each other and share a key.

    Attributes:
        key: What they share; empty for a member that belongs to no sample.
        members: The members, by field: the part of the name after the key.
        damage: What the archive breaks off with, after the last whole sample.
    """

    key: str
    members: dict[str, tarfile.TarInfo]
    damage: str | None = None

    def image_field(self, choice: str | None) -> str | None:
        """Return the field of the image.

        Args:
            choice: The caller's choice; None takes the first that is an image.

        Returns:
            The field; None if there is none.
        """
        if choice is not None:
            return choice if choice in self.members else None
        fields = (f for f in self.members if f.lower() in IMAGE_FIELDS)
        return next(fields, None) if self.key else None


def samples(path: Path) -> Iterator[Sample]:
    """Iterate over the samples of an archive.

    A file that is no tar is an ``InputError``.

    Args:
        path: A tar file that is not compressed.

    Yields:
        The samples in order; what belongs to none comes alone, without a key.

    Raises:
        InputError: If a key comes twice.
    """
    keys: set[str] = set()
    current = Sample(key="", members={})
    damage = None
    for member in _members(path):
        if isinstance(member, str):
            damage = member
            break
        key, field = split_name(member.name)
        if not key:
            yield Sample(key="", members={"": member})
            continue
        if key != current.key:
            if current.key:
                yield current
            if key in keys:
                raise InputError(_twice(path, key))
            keys.add(key)
            current = Sample(key=key, members={})
        if field in current.members:
            raise InputError(_twice(path, f"{key}.{field}"))
        current.members[field] = member
    if current.key:
        yield current
    if damage is not None:
        yield Sample(key="", members={}, damage=damage)


def _twice(path: Path, key: str) -> str:
    return (
        f"expected every key once in {path.name}, got {key!r} more than once; "
        "rename or drop one"
    )


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a member at the first point of its last part.

    Args:
        name: Of the member.

    Returns:
        The key and the field; both empty for a name that has not both.

    Example:
        >>> split_name("cats.d/0001.seg.png"), split_name("README")
        (('cats.d/0001', 'seg.png'), ('', ''))
    """
    folder, slash, last = name.rpartition("/")
    stem, _, field = last.partition(".")
    return (folder + slash + stem, field) if stem and field else ("", "")


def _members(path: Path) -> Iterator[tarfile.TarInfo | str]:
    # at last the damage, if there is any; folders are left out
    with _opened(path) as tar:
        try:
            yield from _forward(tar)
        except Exception as error:  # whatever tarfile meets in made-up headers
            yield f"the archive is damaged from here on ({error})"
            return
        end = tar.offset
    with path.open("rb") as file:  # tarfile takes a broken header for the end
        file.seek(end)
        if any(file.read(512)):
            yield f"the archive is damaged from byte {end:,} on"


def _forward(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    last = -1
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or it grows for ever
        if member.size < 0 or tar.offset <= last:  # would lead back, for ever
            raise tarfile.ReadError("a member of negative size")
        last = tar.offset
        if not member.isdir():
            yield member


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except Exception as error:  # whatever tarfile meets in made-up headers
        raise InputError(
            f"expected a tar file that is not compressed at {str(path)!r}, got one "
            f"that cannot be read ({error}); take it out or repair it"
        ) from error


def is_plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file that lies in the archive as it is.

    Args:
        member: Of the archive.

    Returns:
        False for links, devices, pipes and sparse files, which unpack to any size.
    """
    return member.isreg() and not member.issparse()
