"""Folders of image files: what is in them, without ever leaving them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bezoar.data.images import UNLABELLED
from bezoar.data.labels import Classes
from bezoar.data.records import (
    IMAGE_SUFFIXES,
    NO_FILE,
    Record,
    escaped,
    is_text,
)
from bezoar.errors import EmptyError, InputError

_LEVELS = 100  # more would be too deep for the tools that copy and remove folders
SHARD_SUFFIXES = frozenset((".parquet", ".tar"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One thing that lies in a folder.

    Attributes:
        name: Its path below the folder, with ``/`` between the parts.
        is_folder: Whether it is a folder; its contents follow it.
        reason: Why it cannot be read, if so.
    """

    name: str
    is_folder: bool = False
    reason: str | None = None

    @property
    def suffix(self) -> str:
        """The end of the name in lower case, such as ``.png``."""
        return os.path.splitext(self.name)[1].lower()

    @property
    def is_image(self) -> bool:
        """Whether the name is that of an image, or a link to a folder of them."""
        return not self.is_folder and (
            self.suffix in IMAGE_SUFFIXES or self.reason is not None
        )


def walk(root: Path) -> Iterator[Found]:
    """Iterate over everything below a folder, in the byte order of the names.

    Links to files are followed where they stay inside. Links to folders are not: all
    that lies inside is found under its own name, and loops cannot arise. Pipes,
    devices and links that have not the suffix of an image or a shard are left out.

    Args:
        root: The folder.

    Yields:
        Files, folders, and what cannot be read, with its reason.
    """
    inside = os.path.realpath(root)
    pending = [Found(name="", is_folder=True)]
    while pending:
        found = pending.pop()
        if found.name:
            yield found
        if found.is_folder:
            pending.extend(reversed(_entries(root, found.name, inside)))


def _entries(root: Path, folder: str, inside: str) -> list[Found]:
    try:
        with os.scandir(os.path.join(root, folder)) as scan:
            entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        reason = f"a folder that cannot be opened ({error.strerror})"
        return [Found(name=folder, reason=reason)] if folder else []
    prefix = f"{folder}/" if folder else ""
    found = (_look(entry, prefix + entry.name, inside) for entry in entries)
    return [f for f in found if f is not None]


def _look(entry: os.DirEntry[str], name: str, inside: str) -> Found | None:
    if not is_text(name):
        return Found(name=escaped(name), reason="its name is not UTF-8")
    is_wanted = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES | SHARD_SUFFIXES
    if entry.is_symlink():
        reason = _bad_link(entry, inside)
        if reason is None:
            return Found(name=name)
        is_wanted = is_wanted or os.path.isdir(entry.path)
        return Found(name=name, reason=reason) if is_wanted else None
    if entry.is_dir(follow_symlinks=False):
        if name.count("/") >= _LEVELS:
            return Found(name=name, reason=f"a folder {_LEVELS} levels deep")
        return Found(name=name, is_folder=True)
    if entry.is_file(follow_symlinks=False):
        return Found(name=name)
    return Found(name=name, reason=NO_FILE) if is_wanted else None


def _bad_link(entry: os.DirEntry[str], inside: str) -> str | None:
    target = os.path.realpath(entry.path)
    if os.path.commonpath([target, inside]) != inside:
        return "a link that leaves the folder"
    if os.path.isdir(target):
        return "a link to a folder"
    if not os.path.exists(target):
        return "a link to nothing"
    return None if os.path.isfile(target) else NO_FILE


@dataclass(frozen=True, kw_only=True)
class FolderReader:
    """Image files in class folders, or without labels.

    Attributes:
        root: The folder.
        classes: The class folders, sorted; none for a flat folder.
        num_images: Image files, and links and folders that are not followed.
        image_column: Folders have none.
        label_column: Folders have none.
    """

    root: Path
    classes: Classes
    num_images: int
    image_column: None = None
    label_column: None = None

    def records(self) -> Iterator[Record]:
        """Iterate over the image files.

        Yields:
            One record per file; nothing is opened.
        """
        labels = {name: label for label, name in enumerate(self.classes.names)}
        for found in walk(self.root):
            if found.is_image:
                yield Record(
                    id=found.name,
                    label=labels.get(found.name.partition("/")[0], UNLABELLED),
                    path=None if found.reason else self.root / found.name,
                    reason=found.reason,
                )


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder holds, before it is clear what it is.

    Attributes:
        classes: The folders in it, as class names.
        num_direct: Images that lie directly in it.
        num_nested: Images in its folders.
        num_refused: Links and folders that are not followed.
        shards: Parquet files and tars, by suffix.
        bad_shards: Links to such files that are not followed.
    """

    classes: tuple[str, ...]
    num_direct: int
    num_nested: int
    num_refused: int
    shards: Mapping[str, tuple[str, ...]]
    bad_shards: tuple[Found, ...]


def survey(root: Path) -> Contents:
    """Count what a folder holds.

    An empty folder is a class too: a set that lost all images of a class keeps the
    numbers of the others. Only hidden folders without images are none.

    Args:
        root: The folder.

    Returns:
        Its contents.
    """
    classes: set[str] = set()
    shards: dict[str, list[str]] = {suffix: [] for suffix in SHARD_SUFFIXES}
    bad_shards: list[Found] = []
    num_direct = num_nested = num_refused = 0
    for found in walk(root):
        top, slash, _ = found.name.partition("/")
        if found.is_folder:
            classes.update(() if top[0] == "." else (top,))
        elif found.suffix in IMAGE_SUFFIXES:
            num_direct += not slash
            num_nested += bool(slash)
            classes.update((top,) if slash else ())
        elif found.reason is not None:
            num_refused += 1
            bad_shards += [found] if found.suffix in SHARD_SUFFIXES else []
        elif found.suffix in SHARD_SUFFIXES:
            shards[found.suffix].append(found.name)
    return Contents(
        classes=tuple(sorted(classes)),
        num_direct=num_direct,
        num_nested=num_nested,
        num_refused=num_refused,
        shards={suffix: tuple(names) for suffix, names in shards.items()},
        bad_shards=tuple(bad_shards),
    )


def open_images(root: Path, contents: Contents) -> FolderReader:
    """Return the reader of a folder of image files.

    Args:
        root: The folder.
        contents: What it holds.

    Returns:
        A reader with class names if the images lie in folders.

    Raises:
        InputError: If some lie in folders and some beside them.
        EmptyError: If there are none.
    """
    direct, nested = contents.num_direct, contents.num_nested
    if direct and nested:
        raise InputError(
            f"expected images in class folders or directly in {str(root)!r}, got "
            f"{nested} in folders and {direct} beside them; move either"
        )
    if direct + nested + contents.num_refused == 0:
        raise EmptyError(
            f"expected images in {str(root)!r}, found none; give a folder of images "
            "(.png, .jpg, ...), parquet files or tars"
        )
    return FolderReader(
        root=root,
        classes=Classes(names=contents.classes if nested else ()),
        num_images=direct + nested + contents.num_refused,
    )
