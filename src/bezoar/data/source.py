"""Image sets of any size on disk or on the Hub, read as a stream of blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Literal, NamedTuple

from bezoar.data.decode import Unreadable, decode_records, image_size_of
from bezoar.data.folders import open_images, survey
from bezoar.data.hub import is_hub_id, open_hub
from bezoar.data.images import ImageData, join
from bezoar.data.parquet import open_parquet
from bezoar.data.records import MAX_PIXELS, Reader, Record, largest_file
from bezoar.data.saved import is_saved, open_saved
from bezoar.data.shards import Shards, matching_files, shards_in, shards_of_files
from bezoar.data.tars import open_tars
from bezoar.errors import EmptyError, InputError

Format = Literal[
    "class_folders", "flat_folder", "parquet", "webdataset", "dataset", "hub"
]

_THREADS = 2  # PIL leaves the interpreter while it decodes
_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Consecutive rows of a source, decoded.

    Attributes:
        index: Its place; block ``index`` always holds the same rows.
        data: The images that could be read; None if there are none.
        unreadable: The others, each with its reason.
    """

    index: int
    data: ImageData | None
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image set that is read anew each time, in the same order.

    Attributes:
        spec: What was opened.
        format: How the images are stored.
        reader: Reads the rows of this format.
        max_pixels: Larger images are refused unread.
    """

    spec: str
    format: Format
    reader: Reader = field(repr=False)
    max_pixels: int = MAX_PIXELS

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index; empty where there are no labels."""
        return self.reader.classes.names

    @property
    def image_column(self) -> str | None:
        """Column or field of the images; None for folders."""
        return self.reader.image_column

    @property
    def label_column(self) -> str | None:
        """Column or field of the labels; None where there is none."""
        return self.reader.label_column

    @property
    def num_images(self) -> int | None:
        """Number of rows, readable or not; None if only reading tells."""
        return self.reader.num_images

    def records(self) -> Iterator[Record]:
        """Iterate over the rows as they are stored.

        Returns:
            One record per row, in the order of the blocks.
        """
        return self.reader.records()

    def blocks(
        self, block_size: int, *, image_size: tuple[int, int], skip: Container[int] = ()
    ) -> Iterator[Block]:
        """Iterate over the images, a block at a time.

        Args:
            block_size: Rows per block; the last block may be smaller.
            image_size: Height and width to resize to.
            skip: Indices of blocks that are not wanted, and not decoded.

        Yields:
            The blocks in order.

        Raises:
            InputError: If a size is not positive.
        """
        if min(block_size, *image_size) < 1:
            raise InputError(
                f"expected positive sizes, got blocks of {block_size} and images of "
                f"{image_size}; correct them"
            )
        yield from self.blocks_of(self.records(), block_size, image_size, skip)

    def blocks_of(
        self,
        records: Iterator[Record],
        block_size: int,
        image_size: tuple[int, int],
        skip: Container[int] = (),
    ) -> Iterator[Block]:
        """Iterate over given rows of the set, a block at a time.

        Args:
            records: Rows; of each block they are taken before it is given.
            block_size: Rows per block.
            image_size: Height and width to resize to.
            skip: Indices of blocks that are not decoded.

        Yields:
            The blocks in order.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for index in count():
                rows = islice(records, block_size)
                first = next(rows, None)
                if first is None:
                    return
                if index in skip:
                    for _ in rows:
                        pass
                    continue
                data, unreadable = decode_records(
                    chain((first,), rows),
                    image_size=image_size,
                    class_names=self.class_names,
                    pool=pool,
                    max_pixels=self.max_pixels,
                )
                yield Block(index=index, data=data, unreadable=unreadable)

    def probe_size(
        self, *, num_images: int = 256, largest: int = 224
    ) -> tuple[int, int]:
        """Return the most common size among the first images.

        Where no image can be read, this is an ``EmptyError``.

        Args:
            num_images: How many readable images to look at; only their headers are.
            largest: Bound for height and for width.

        Returns:
            Height and width.
        """
        sizes: Counter[tuple[int, int]] = Counter()
        refused: list[Unreadable] = []
        for record in self.records():
            try:
                data = record.read(max_bytes=largest_file(self.max_pixels))
                sizes[image_size_of(data, max_pixels=self.max_pixels)] += 1
            except InputError as error:
                refused = refused or [Unreadable(id=record.id, reason=str(error))]
            if sizes.total() == num_images:
                break
        if not sizes:
            raise self._empty(refused)
        ((height, width), _) = sizes.most_common(1)[0]
        return min(height, largest), min(width, largest)

    def read(
        self, *, image_size: tuple[int, int] | None = None, limit: int | None = None
    ) -> tuple[ImageData, tuple[Unreadable, ...]]:
        """Read the images into memory.

        Where no image can be read, this is an ``EmptyError``.

        Args:
            image_size: Height and width to resize to; None takes ``probe_size``.
            limit: How many rows to read; None reads all.

        Returns:
            The images that could be read, and the others with their reasons.
        """
        size = image_size or self.probe_size()
        parts: list[ImageData] = []
        unreadable: list[Unreadable] = []
        for block in self.blocks_of(islice(self.records(), limit), _BLOCK, size):
            parts += [] if block.data is None else [block.data]
            unreadable += block.unreadable
        if not parts:
            raise self._empty(unreadable)
        return join(parts), tuple(unreadable)

    def _empty(self, refused: list[Unreadable]) -> EmptyError:
        worst = f" ({refused[0].id!r} is {refused[0].reason})" if refused else ""
        return EmptyError(
            f"expected images in {self.spec!r}, found none that can be read{worst}; "
            "give another set"
        )


def open_source(
    spec: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ImageSource:
    """Open an image set, whatever its format.

    Args:
        spec: A folder of class folders or of images, a parquet file, a tar in the
            webdataset format, a folder or pattern of such files, a folder that
            ``save_to_disk`` of the ``datasets`` library wrote, or a Hub id.
        image_column: Column or field of the images; None looks for it.
        label_column: Column or field of the labels; None looks for it.
        split: Which split; None takes the only one, or "train" where there are several.
        max_pixels: Larger images are listed as unreadable before they are decoded.

    Returns:
        The set; its images are read when they are asked for.

    Raises:
        InputError: If there is no such set, it cannot be understood, or a label is
            outside the classes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bezoar.data import noise_images, write_images
        >>> with TemporaryDirectory() as folder:
        ...     write_images(noise_images(4), Path(folder, "a"), format="class_folders")
        ...     source = open_source(Path(folder, "a"))
        >>> source.format, source.class_names, source.num_images
        ('class_folders', ('even', 'odd'), 4)
    """
    wish = _Wish(image_column, label_column, split, max_pixels)
    path = Path(spec)
    if path.is_dir():
        kind, reader = _open_folder(path, wish)
    elif path.exists():
        kind, reader = _open_shards(shards_of_files([path]), wish)
    elif any(letter in str(spec) for letter in "*?["):
        kind, reader = _open_shards(shards_of_files(matching_files(str(spec))), wish)
    elif is_hub_id(str(spec)):
        reader = open_hub(str(spec), split=split or "train", **wish.columns)
        kind = "hub"
    else:
        raise InputError(
            f"expected a folder, parquet files, tars or the id of a data set on the "
            f"Hub, got {str(spec)!r}, which is not there; correct the path"
        )
    return ImageSource(
        spec=str(spec), format=kind, reader=reader, max_pixels=max_pixels
    )


class _Wish(NamedTuple):
    image_column: str | None
    label_column: str | None
    split: str | None
    max_pixels: int

    @property
    def columns(self) -> dict[str, str | None]:
        return {"image_column": self.image_column, "label_column": self.label_column}


def _open_folder(path: Path, wish: _Wish) -> tuple[Format, Reader]:
    if is_saved(path):
        return "dataset", open_saved(path, split=wish.split, **wish.columns)
    contents = survey(path)
    shards = shards_in(path, contents, split=wish.split)
    if shards is not None:
        return _open_shards(shards, wish)
    reader = open_images(path, contents)
    return "class_folders" if reader.classes.names else "flat_folder", reader


def _open_shards(shards: Shards, wish: _Wish) -> tuple[Format, Reader]:
    if shards.suffix == ".parquet":
        return "parquet", open_parquet(shards.root, shards.names, **wish.columns)
    max_bytes = largest_file(wish.max_pixels)
    found = open_tars(shards.root, shards.names, max_bytes=max_bytes, **wish.columns)
    return "webdataset", found
