"""A poisoned set on disk, with nothing in it that tells the poison from the rest."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch

from bezoar.data import (
    Format,
    ImageData,
    content_keys,
    open_source,
    write_images,
)
from bezoar.errors import StorageError
from bezoar.results import Poisoned


def write_drill(poisoned: Poisoned, out: Path, *, source_format: Format) -> Poisoned:
    """Write a poisoned set, and read it back to be sure of what lies there.

    Args:
        poisoned: The set.
        out: A new folder, or a new file where the format allows it.
        source_format: How the clean set is stored; the poisoned one is stored alike,
            and as parquet where it came from the Hub or from ``save_to_disk``.

    Returns:
        The set as it lies there: its ids are those that another reader gets.
    """
    data = poisoned.data
    if source_format == "class_folders":
        write_images(replace(data, ids=_neutral_ids(data)), out, format="class_folders")
    elif source_format == "webdataset":
        write_images(data, out, format="webdataset")
    else:
        write_images(data, out, format="parquet")
    height, width = data.images.shape[2:]
    written, unreadable = open_source(out).read(image_size=(height, width))
    return _matched(poisoned, written, where=str(out), num_lost=len(unreadable))


def _neutral_ids(data: ImageData) -> tuple[str, ...]:
    # An image moves to the folder of its new label. Where that could make two names
    # meet, a number in the order of the contents is taken for all of them: a name of
    # another kind would tell which ones have moved.
    names = [posixpath.splitext(posixpath.basename(name))[0] for name in data.ids]
    if len(set(names)) < len(names) or not all(names):
        keys = content_keys(data.images)
        order = sorted(range(len(keys)), key=lambda i: (keys[i], data.ids[i]))
        digits = len(str(len(keys) - 1))
        for place, i in enumerate(order):
            names[i] = f"{place:0{digits}}"
    return tuple(
        f"{data.class_names[label]}/{name}"
        for label, name in zip(data.labels.tolist(), names, strict=True)
    )


def _matched(
    poisoned: Poisoned, written: ImageData, *, where: str, num_lost: int
) -> Poisoned:
    # Rows are told by content and label: formats order and name them as they please.
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    data = poisoned.data
    for i, row in enumerate(
        zip(content_keys(data.images), data.labels.tolist(), strict=True)
    ):
        rows[row].append(i)
    origin = []
    for row in zip(content_keys(written.images), written.labels.tolist(), strict=True):
        if rows[row]:
            origin.append(rows[row].pop())
    if num_lost or not len(origin) == len(written) == len(data):
        raise StorageError(
            f"expected to find the {len(data)} images just written in {where!r}, got "
            f"{len(origin)} of them; choose another place"
        )
    places = torch.tensor(origin)
    return replace(
        poisoned,
        data=written,
        is_poison=poisoned.is_poison[places],
        original_labels=poisoned.original_labels[places],
    )
