"""Which files a set consists of, where it comes in several."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bezoar.data.folders import SHARD_SUFFIXES, Contents
from bezoar.errors import EmptyError, InputError

_SAME = {"val": "validation", "valid": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?:^|[-_.])(train|test|validation|valid|val|dev)(?=[-_.]|$)")


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Files of one format, in the order in which they are read.

    Attributes:
        root: The folder that they lie in or below.
        names: Their paths below it, with ``/`` between the parts.
        suffix: Of all of them, such as ``.parquet``.
    """

    root: Path
    names: tuple[str, ...]
    suffix: str


def shards_in(folder: Path, contents: Contents, *, split: str | None) -> Shards | None:
    """Return the parquet files or tars of a folder.

    Where the names of all of them tell a split ("train-00001.parquet"), those of one
    split are taken.

    Args:
        folder: The folder.
        contents: What it holds.
        split: Which split; None takes the only one, or "train".

    Returns:
        The files; None if the folder is one of images.

    Raises:
        InputError: If it holds several kinds, lacks the split, or has links to files
            outside.
    """
    found = {suffix: names for suffix, names in contents.shards.items() if names}
    kinds = {f"*{suffix}": len(names) for suffix, names in found.items()}
    if contents.num_direct + contents.num_nested:
        kinds["images"] = contents.num_direct + contents.num_nested
    if len(kinds) > 1:
        counts = " and ".join(f"{number} {kind}" for kind, number in kinds.items())
        raise InputError(
            f"expected one kind of data in {str(folder)!r}, got {counts}; give the "
            "files that are meant, such as 'folder/*.parquet'"
        )
    if "images" not in kinds and contents.bad_shards:
        bad = contents.bad_shards[0]
        raise InputError(
            f"expected files inside {str(folder)!r}, got {bad.name!r}, {bad.reason}; "
            "give the files themselves if you trust them"
        )
    if "images" in kinds or not found:
        return None
    ((suffix, names),) = found.items()
    return Shards(
        root=folder, names=_of_split(names, split, str(folder)), suffix=suffix
    )


def _of_split(names: Sequence[str], split: str | None, where: str) -> tuple[str, ...]:
    splits = [_split_of(name) for name in names]
    if None in splits or (split is None and len(set(splits)) == 1):
        return tuple(names)
    wanted = _SAME.get(split or "train", split or "train")
    if wanted not in splits:
        raise InputError(
            f"expected files of the split {wanted!r} in {where!r}, got "
            f"{', '.join(sorted({str(s) for s in splits}))}; name one with split"
        )
    return tuple(n for n, s in zip(names, splits, strict=True) if s == wanted)


def _split_of(name: str) -> str | None:
    found = _SPLIT.findall(os.path.splitext(name)[0].rpartition("/")[2].lower())
    return _SAME.get(found[0], found[0]) if found else None


def shards_of_files(files: Sequence[Path]) -> Shards:
    """Return given files as one set.

    Args:
        files: At least one file.

    Returns:
        The files, below the folder that they share.

    Raises:
        InputError: If they are not of one known format.
    """
    suffixes = sorted({file.suffix.lower() for file in files})
    if len(suffixes) != 1 or suffixes[0] not in SHARD_SUFFIXES:
        raise InputError(
            "expected a folder, parquet files or tars, got files that end in "
            f"{', '.join(s or 'nothing' for s in suffixes)}; give one kind of these"
        )
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    names = (file.absolute().relative_to(root).as_posix() for file in files)
    return Shards(root=root, names=tuple(names), suffix=suffixes[0])


def matching_files(pattern: str) -> list[Path]:
    """Return the files that a pattern such as ``folder/*.parquet`` means.

    Args:
        pattern: A path with wildcards.

    Returns:
        The files, in byte order.

    Raises:
        EmptyError: If there are none.
    """
    found = sorted(glob.glob(pattern, recursive=True), key=os.fsencode)
    files = [Path(name) for name in found if os.path.isfile(name)]
    if not files:
        raise EmptyError(
            f"expected files that match {pattern!r}, found none; correct the pattern"
        )
    return files
