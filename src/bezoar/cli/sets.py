"""Image sets as the verbs take them: their size, their content, all of them at once."""

from __future__ import annotations

import os

from bezoar.cli.progress import Report
from bezoar.data import ImageData, ImageSource, Unreadable, join
from bezoar.engine import check_classes, fingerprint_of, image_size_for
from bezoar.errors import EmptyError, InputError
from bezoar.runtime import Progress

_BLOCK = 1024

__all__ = [
    "check_classes",
    "check_room",
    "fingerprint_of",
    "image_size_for",
    "read_whole",
]


def read_whole(
    source: ImageSource, *, image_size: tuple[int, int], report: Report
) -> tuple[ImageData, tuple[Unreadable, ...]]:
    """Read a set into memory.

    Args:
        source: The set.
        image_size: Height and width to resize to.
        report: Told after every block.

    Returns:
        The images that could be read, and the others with their reasons.

    Raises:
        EmptyError: If no image can be read; an ``InputError`` follows a set that would
            take most of the memory.
    """
    check_room(source.num_images or 0, image_size)
    parts: list[ImageData] = []
    unreadable: list[Unreadable] = []
    done, total = 0, source.num_images or 0
    for block in source.blocks(_BLOCK, image_size=image_size):
        parts += [] if block.data is None else [block.data]
        unreadable += block.unreadable
        done += len(block.unreadable) + (0 if block.data is None else len(block.data))
        check_room(done, image_size)
        report(Progress(stage="read", done=done, total=total))
    if not parts:
        reason = (
            f" ({unreadable[0].id!r}: {unreadable[0].reason})" if unreadable else ""
        )
        raise EmptyError(
            f"expected images in {source.spec!r}, found none that can be read{reason}; "
            "give another set"
        )
    return join(parts), tuple(unreadable)


def check_room(num_images: int, image_size: tuple[int, int]) -> None:
    """Check that so many images leave room in memory for work on them.

    Args:
        num_images: How many.
        image_size: Height and width.

    Raises:
        InputError: If they would take more than two fifths of the memory; while they
            are joined, twice that is in use.
    """
    height, width = image_size
    needed = 3 * height * width * num_images
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.4 * memory:
        raise InputError(
            f"expected a set that fits into memory, got {num_images:,} images of "
            f"{height}x{width} pixels, {needed / 2**30:.1f} GiB of "
            f"{memory / 2**30:.1f}; lower --image-size, give a part of the set or, to "
            "detect, a trained --model"
        )
