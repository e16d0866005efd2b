"""What a run asks of a set before it begins: a size, the classes, a name for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from torch import nn

from bezoar.data import ImageSource
from bezoar.data.records import largest_file
from bezoar.errors import InputError, ModelError
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


def fingerprint_of(source: ImageSource, *, report: Callable[[Progress], None]) -> str:
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
