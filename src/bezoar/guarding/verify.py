"""Reads every file of a set: which cannot be read, and which are there twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bezoar.data import ImageSource, PairSource, Unreadable, decode_image
from bezoar.data.records import largest_file
from bezoar.errors import EmptyError, InputError, StorageError
from bezoar.metrics.near_duplicates import SIDE, Looks, groups, looks, near_pairs
from bezoar.runtime import Progress
from bezoar.storage import read_object, write_json

FILE = "verified.json"
_FORMAT = 1
_BLOCK = 1024
_CAPTIONS = 100


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What reading every file of a set came to.

    Attributes:
        num_images: Files that are images.
        unreadable: The others, with the reasons.
        exact: Groups of files that are equal byte for byte, in the order of the set.
        near: Groups of images that show the same, without those of one file.
        conflicts: Of the exact groups, those with more than one label.
        captions: The captions that are there most often, with how often; those of
            one image alone are left out.
    """

    num_images: int
    unreadable: tuple[Unreadable, ...]
    exact: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    captions: tuple[tuple[str, int], ...] = ()

    @property
    def summary(self) -> str:
        """What was found, in a few words."""
        parts = [f"{self.num_images:,} images"]
        for groups_, word in (
            (self.exact, "exact duplicates"),
            (self.near, "near duplicates"),
        ):
            extra = sum(len(group) - 1 for group in groups_)
            parts += [f"{extra:,} {word}"] * (extra > 0)
        if self.conflicts:
            parts.append(f"{len(self.conflicts):,} of them under several labels")
        parts += [f"{len(self.unreadable):,} unreadable"] * bool(self.unreadable)
        if self.captions:
            parts.append(f"the commonest caption {self.captions[0][1]:,} times")
        return ", ".join(parts)


def verify(source: ImageSource, *, report: Callable[[Progress], None]) -> Verified:
    """Read every file of a set.

    Of an image about 300 bytes stay in memory: its name, a hash, and what it looks
    like in little.

    Args:
        source: The set; it is only read.
        report: Told after every block.

    Returns:
        What was found.

    Raises:
        EmptyError: If no file is an image.
    """
    ids: list[str] = []
    labels: list[int] = []
    digests: list[bytes] = []
    unreadable: list[Unreadable] = []
    seen: list[Looks] = []
    for block in _blocks(source, unreadable, report):
        ids += [row[0] for row in block]
        labels += [row[1] for row in block]
        digests += [row[2] for row in block]
        seen.append(looks(torch.stack([row[3] for row in block])))
    if not ids:
        why = f" ({unreadable[0].id!r}: {unreadable[0].reason})" if unreadable else ""
        raise EmptyError(
            f"expected images in {source.spec!r}, found none that can be read{why}; "
            "give another set"
        )
    exact = _equal(digests)
    first = {i: group[0] for group in exact for i in group}
    every = Looks(
        keys=torch.cat([s.keys for s in seen]),
        pictures=torch.cat([s.pictures for s in seen]),
    )
    near = [
        sorted({first.get(i, i) for i in group})
        for group in groups(near_pairs(every), len(ids))
    ]
    conflicts = [g for g in exact if len({labels[i] for i in g}) > 1]
    return Verified(
        num_images=len(ids),
        unreadable=tuple(unreadable),
        exact=_named(exact, ids),
        near=_named([group for group in near if len(group) > 1], ids),
        conflicts=_named(conflicts, ids),
    )


def repeated_captions(pairs: PairSource) -> tuple[tuple[str, int], ...]:
    """Return the captions that are there more than once, the commonest first.

    Letters and blanks do not matter: a caption that is copied is seldom copied well.

    Args:
        pairs: The set.

    Returns:
        At most a hundred captions, with how often they are there.
    """
    counts = Counter(" ".join(c.casefold().split()) for _, c in pairs.captions())
    return tuple((c, n) for c, n in counts.most_common(_CAPTIONS) if n > 1)


def save_verified(found: Verified, folder: Path) -> None:
    """Write what was found.

    Args:
        found: What to write.
        folder: Where to.
    """
    write_json(folder / FILE, {"format": _FORMAT, **vars(found)})


def load_verified(folder: Path) -> Verified:
    """Read what :func:`save_verified` wrote.

    Args:
        folder: The folder that was written.

    Returns:
        The same.

    Raises:
        StorageError: If the file is missing, damaged or of another format.
    """
    plain = cast("dict[str, Any]", read_object(folder / FILE))
    try:
        return Verified(
            num_images=plain["num_images"],
            unreadable=tuple(Unreadable(**row) for row in plain["unreadable"]),
            captions=tuple((text, count) for text, count in plain["captions"]),
            **{
                name: tuple(tuple(group) for group in plain[name])
                for name in ("exact", "near", "conflicts")
            },
        )
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"expected {FILE} as it was written, got another format ({error}); remove "
            "it and run again"
        ) from error


_Row = tuple[str, int, bytes, torch.Tensor]


def _blocks(
    source: ImageSource,
    unreadable: list[Unreadable],
    report: Callable[[Progress], None],
) -> Iterator[list[_Row]]:
    max_bytes, total = largest_file(source.max_pixels), source.num_images or 0
    block: list[_Row] = []
    for done, record in enumerate(source.records(), start=1):
        try:
            content = record.read(max_bytes=max_bytes)
            image = decode_image(
                content, image_size=(SIDE, SIDE), max_pixels=source.max_pixels
            )
        except InputError as error:
            unreadable.append(Unreadable(id=record.id, reason=str(error)))
        else:
            name = hashlib.blake2b(content, digest_size=16).digest()
            block.append((record.id, record.label, name, image))
        if len(block) == _BLOCK:
            yield block
            block = []
        if done % _BLOCK == 0 or done == total:
            report(Progress(stage="verify", done=done, total=total))
    if block:
        yield block


def _equal(digests: Sequence[bytes]) -> list[list[int]]:
    counts = Counter(digests)
    found: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        if counts[digest] > 1:
            found.setdefault(digest, []).append(i)
    return list(found.values())


def _named(
    found: Sequence[Sequence[int]], ids: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(ids[i] for i in group) for group in found)
