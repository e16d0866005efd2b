"""Image sets as the verbs take them: their size, their content, all of them at once."""

from __future__ import annotations

import hashlib
import json
import os

from torch import nn

from bezoar.cli.progress import Report
from bezoar.data import ImageData, ImageSource, Unreadable, join
from bezoar.data.records import largest_file
from bezoar.errors import EmptyError, InputError, ModelError
from bezoar.runtime import Progress

_BLOCK = 1024


def image_size_for(
    source: ImageSource,
    *,
    asked: int | None,
    model: nn.Module | None = None,
    largest: int = 224,
) -> tuple[int, int]:
    """Return the size that images are resized to.

    Args:
        source: The images.
        asked: The size that the user gave, for height and width; None leaves it open.
        model: The model to show them to; it may tell the size that it was made for.
        largest: Bound for sizes that the set suggests.

    Returns:
        Height and width: what was asked for, else what the model was made for, else
        the most common size in the set.

    Raises:
        InputError: If the size asked for is no size.
    """
    if asked is not None and asked < 1:
        raise InputError(
            f"expected a positive --image-size, got {asked}; give one such as 32"
        )
    known = asked or getattr(model, "image_size", None)
    if isinstance(known, int):
        return known, known
    return source.probe_size(largest=largest)


def check_classes(model: nn.Module, source: ImageSource) -> str:
    """Check that a model means by its classes what a set means by its own.

    Args:
        model: It may tell the names of its classes.
        source: The set.

    Returns:
        A remark where the names differ but may mean the same; empty if all is well.

    Raises:
        ModelError: If they are the same names in another order.
    """
    theirs = tuple(getattr(model, "class_names", ()))
    ours = source.class_names
    if not theirs or not ours or theirs == ours:
        return ""
    if sorted(theirs) == sorted(ours):
        raise ModelError(
            f"expected the classes in the order {', '.join(theirs[:5])}, ... that the "
            f"model was trained with, got {', '.join(ours[:5])}, ...; give the set "
            "that it was trained on, or its like"
        )
    return (
        f"the model's classes are called {', '.join(theirs[:3])}, ..., those of the "
        f"set {', '.join(ours[:3])}, ...; they are taken for the same, in this order"
    )


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


def fingerprint_of(source: ImageSource, *, report: Report) -> str:
    """Return a short text that two sets share only if they hold the same.

    Args:
        source: The set. One from the Hub is not fetched for this: its name, its
            classes and its size are taken.
        report: Told now and then.

    Returns:
        The BLAKE2b hash of ids, labels and files in their order.
    """
    digest = hashlib.blake2b(digest_size=16)
    facts = [source.class_names, source.num_images]
    if source.format == "hub":
        digest.update(json.dumps([source.spec, *facts]).encode())
        return digest.hexdigest()
    digest.update(json.dumps(facts).encode())
    max_bytes = largest_file(source.max_pixels)
    for done, record in enumerate(source.records(), start=1):
        try:
            content = record.read(max_bytes=max_bytes)
        except InputError as error:
            content = str(error).encode(errors="replace")
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        digest.update(json.dumps([record.id, record.label, name]).encode())
        if done % _BLOCK == 0 or done == source.num_images:
            total = source.num_images or 0
            report(Progress(stage="fingerprint", done=done, total=total))
    return digest.hexdigest()
