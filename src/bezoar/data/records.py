"""One row of an image set as it is stored, before anything is decoded."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes
from bezoar.errors import InputError

MAX_PIXELS = 64_000_000
NO_LABEL = "it has no label that can be read"
NO_FILE = "not a plain file but a link, pipe or device"

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("apng", "avif", "bmp", "dib", "gif", "heic", "jfif", "jp2", "jpe", "jpeg"),
        *("jpg", "mpo", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row of an image set, in the form it is stored.

    Attributes:
        id: Its stable name; unique in the set.
        label: Class index; -1 where there is none.
        data: The bytes of the image file, where the row holds them.
        path: The image file, where the row is a file.
        reason: Why there is nothing to read; None for all other rows.
        caption: The text of the row, in a set of pairs.
    """

    id: str
    label: int = UNLABELLED
    data: bytes | None = None
    path: Path | None = None
    reason: str | None = None
    caption: str | None = None

    def read(self, *, max_bytes: int) -> bytes:
        """Return the bytes of the image file.

        Args:
            max_bytes: Larger files are refused unread.

        Returns:
            The bytes as they are stored.

        Raises:
            InputError: If there is nothing to read; the text is the reason.
        """
        if self.reason is not None:
            raise InputError(self.reason)
        if self.path is not None:
            return read_file(self.path, max_bytes=max_bytes)
        data = self.data or b""
        if len(data) > max_bytes:
            raise InputError(too_large(len(data), max_bytes))
        return data


@runtime_checkable
class Reader(Protocol):
    """What every format offers: its rows, always in the same order."""

    @property
    def classes(self) -> Classes:
        """The classes of the labels."""
        ...  # pragma: no cover

    @property
    def image_column(self) -> str | None:
        """Column or field of the images."""
        ...  # pragma: no cover

    @property
    def label_column(self) -> str | None:
        """Column or field of the labels."""
        ...  # pragma: no cover

    @property
    def num_images(self) -> int | None:
        """Number of rows; None if only reading tells."""
        ...  # pragma: no cover

    def records(self) -> Iterator[Record]:
        """Iterate over the rows.

        Yields:
            One record per row; a row that cannot be read has a reason.
        """
        ...  # pragma: no cover


def largest_file(max_pixels: int) -> int:
    """Return the size beyond which no file of so many pixels can be.

    Args:
        max_pixels: Width times height of the largest image.

    Returns:
        Bytes: four channels of two bytes, and room for metadata.
    """
    return 8 * max_pixels + (16 << 20)


def too_large(size: int, max_bytes: int) -> str:
    """Say that a file is too large to be looked at.

    Args:
        size: Its bytes.
        max_bytes: The most that is read.

    Returns:
        The reason, in plain words.
    """
    return f"a file of {size:,} bytes; at most {max_bytes:,} are read"


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file; never wait for a pipe or a device.

    Args:
        path: The file.
        max_bytes: Larger files are refused unread.

    Returns:
        Its bytes.

    Raises:
        InputError: If it cannot be read; the text is the reason.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot be opened ({_words(error)})") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(NO_FILE)
        if status.st_size > max_bytes:
            raise InputError(too_large(status.st_size, max_bytes))
        return _read_all(handle, status.st_size)
    except OSError as error:
        raise InputError(f"cannot be read ({_words(error)})") from error
    finally:
        os.close(handle)


def _read_all(handle: int, size: int) -> bytes:
    data = os.read(handle, size)
    while len(data) < size:  # a read may return less than was asked for
        more = os.read(handle, size - len(data))
        if not more:
            break
        data += more
    return data


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def is_text(name: str) -> bool:
    """Whether a name is text: bytes that are no UTF-8 come as lone surrogates.

    Args:
        name: Of a file or of a member of an archive.

    Returns:
        False if it cannot be written as UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(name: str) -> str:
    """Return a name that is no text as one that is.

    Args:
        name: As above.

    Returns:
        The name with the bytes in question as escapes.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_safe_name(name: str) -> bool:
    """Whether a name can become a file below a folder, and only there.

    Args:
        name: A relative path with ``/`` between its parts.

    Returns:
        False for absolute names, ``..``, empty parts, backslashes, control
        characters, and names that are no UTF-8 or too long for a file system.

    Example:
        >>> [is_safe_name(n) for n in ("cat/1.png", "../1.png", "/etc/passwd", "")]
        [True, False, False, False]
    """
    if not is_text(name) or any(ord(c) < 32 or c in "\x7f\\" for c in name):
        return False
    parts = name.split("/")
    return all(p not in ("", ".", "..") and len(p.encode()) <= 240 for p in parts)
