"""Sets of images and captions of any size on disk, read as a stream of blocks."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from bezoar.data.caption_files import CAPTION_SUFFIXES, open_caption_file
from bezoar.data.decode import Unreadable
from bezoar.data.folders import survey
from bezoar.data.images import ImageData
from bezoar.data.pairs import PairData, join_pairs
from bezoar.data.parquet import open_parquet, schema_of
from bezoar.data.records import MAX_PIXELS, Reader, Record, largest_file
from bezoar.data.saved import is_saved, load, open_saved
from bezoar.data.shards import Shards, matching_files, shards_in, shards_of_files
from bezoar.data.source import ImageSource
from bezoar.data.tars import open_tars
from bezoar.data.texts import find_text_column
from bezoar.errors import EmptyError, InputError

PairFormat = Literal["caption_file", "parquet", "webdataset", "dataset"]

_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBlock:
    """Consecutive rows of a set of pairs, decoded.

    Attributes:
        index: Its place; block ``index`` always holds the same rows.
        data: The pairs that could be read; None if there are none.
        unreadable: The others, each with its reason.
    """

    index: int
    data: PairData | None
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """A set of images and captions that is read anew each time, in the same order.

    Attributes:
        spec: What was opened.
        format: How the pairs are stored.
        reader: Reads the rows of this format, captions with them.
        max_pixels: Larger images are refused unread.
    """

    spec: str
    format: PairFormat
    reader: Reader = field(repr=False)
    max_pixels: int = MAX_PIXELS

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index; empty where there are no labels."""
        return self.reader.classes.names

    @property
    def num_pairs(self) -> int | None:
        """Number of rows, readable or not; None if only reading tells."""
        return self.reader.num_images

    @property
    def images(self) -> ImageSource:
        """The same set without its captions."""
        kind = "flat_folder" if self.format == "caption_file" else self.format
        return ImageSource(
            spec=self.spec, format=kind, reader=self.reader, max_pixels=self.max_pixels
        )

    def blocks(
        self, block_size: int, *, image_size: tuple[int, int], skip: Container[int] = ()
    ) -> Iterator[PairBlock]:
        """Iterate over the pairs, a block at a time.

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
        yield from self._blocks(self.reader.records(), block_size, image_size, skip)

    def captions(self) -> Iterator[tuple[str, str]]:
        """Iterate over ids and captions without decoding an image.

        Yields:
            The id and the caption of each row that has one.
        """
        for record in self.reader.records():
            if record.caption is not None:
                yield record.id, record.caption

    def read(
        self, *, image_size: tuple[int, int] | None = None, limit: int | None = None
    ) -> tuple[PairData, tuple[Unreadable, ...]]:
        """Read the pairs into memory.

        Args:
            image_size: Height and width to resize to; None takes the most common.
            limit: How many rows to read; None reads all.

        Returns:
            The pairs that could be read, and the others with their reasons.

        Raises:
            EmptyError: If no pair can be read.
        """
        size = image_size or self.images.probe_size()
        parts: list[PairData] = []
        unreadable: list[Unreadable] = []
        rows = islice(self.reader.records(), limit)
        for block in self._blocks(rows, _BLOCK, size, ()):
            parts += [] if block.data is None else [block.data]
            unreadable += block.unreadable
        if not parts:
            first = unreadable[0] if unreadable else None
            worst = f" ({first.id!r}: {first.reason})" if first else ""
            raise EmptyError(
                f"expected images with captions in {self.spec!r}, found none that can "
                f"be read{worst}; give another set"
            )
        return join_pairs(parts), tuple(unreadable)

    def _blocks(
        self,
        records: Iterator[Record],
        block_size: int,
        image_size: tuple[int, int],
        skip: Container[int],
    ) -> Iterator[PairBlock]:
        captions: dict[str, str] = {}

        def noted() -> Iterator[Record]:
            for record in records:
                if record.caption is not None:
                    captions[record.id] = record.caption
                yield record

        for block in self.images.blocks_of(noted(), block_size, image_size, skip):
            data = None if block.data is None else _with(captions, block.data)
            captions.clear()  # those of skipped blocks with them
            yield PairBlock(index=block.index, data=data, unreadable=block.unreadable)


def open_pairs(
    spec: str | Path,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> PairSource:
    """Open a set of images and captions, whatever its format.

    What is no such set, or has no captions, is an ``InputError``.

    Args:
        spec: A table ``filepath,title`` (.csv or .tsv) or a folder that holds one;
            parquet with image and text columns; webdataset tars with ``txt`` or
            ``json`` beside the images; a folder or pattern of such files; a folder
            that ``save_to_disk`` of the ``datasets`` library wrote.
        image_column: Column or field of the images or of their paths.
        text_column: Column, field or JSON key of the captions.
        label_column: Column or field of class labels, for those who measure.
        split: Which split; None takes the only one, or "train" where there are several.
        max_pixels: Larger images are listed as unreadable before they are decoded.

    Returns:
        The set; its pairs are read when they are asked for.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bezoar.data import shape_pairs, write_pairs
        >>> with TemporaryDirectory() as folder:
        ...     write_pairs(shape_pairs(4), Path(folder, "set"))
        ...     data, unreadable = open_pairs(Path(folder, "set")).read()
        >>> data.captions[0], unreadable
        ('a red circle on black', ())
    """
    path = Path(spec)
    columns = {"image_column": image_column, "label_column": label_column}
    table = _caption_file(path)
    kind: PairFormat
    reader: Reader
    if table is not None:
        kind = "caption_file"
        reader = open_caption_file(table, text_column=text_column, **columns)
    elif path.is_dir() and is_saved(path):
        kind = "dataset"
        saved = open_saved(path, split=split, **columns)
        schema = load(saved.folder).features.arrow_schema
        text = find_text_column(
            schema,
            where=str(saved.folder),
            text_column=text_column,
            taken=[saved.image_column, saved.label_column or ""],
        )
        reader = replace(saved, text_column=text)
    else:
        shards = _shards(path, str(spec), split)
        kind = "parquet" if shards.suffix == ".parquet" else "webdataset"
        reader = _shard_reader(shards, text_column, columns, max_pixels)
    return PairSource(spec=str(spec), format=kind, reader=reader, max_pixels=max_pixels)


def _with(captions: dict[str, str], data: ImageData) -> PairData:
    return PairData(
        images=data.images,
        captions=tuple(captions[i] for i in data.ids),
        ids=data.ids,
        labels=data.labels,
        class_names=data.class_names,
    )


def _caption_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in CAPTION_SUFFIXES else None
    if not path.is_dir():
        return None
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in CAPTION_SUFFIXES)
    if len(found) > 1:
        raise InputError(
            f"expected one table of captions in {str(path)!r}, got "
            f"{', '.join(p.name for p in found[:5])}; give the file that is meant"
        )
    return found[0] if found else None


def _shards(path: Path, spec: str, split: str | None) -> Shards:
    found: Shards | None = None
    if path.is_dir():
        found = shards_in(path, survey(path), split=split)
    elif path.exists():
        found = shards_of_files([path])
    elif any(letter in spec for letter in "*?["):
        found = shards_of_files(matching_files(spec))
    if found is None:
        raise InputError(
            "expected images with captions (a table filepath,title as .csv or .tsv, "
            f"parquet, webdataset tars, or a saved data set), got {spec!r}, which is "
            "none of them; give one, or open images alone with open_source"
        )
    return found


def _shard_reader(
    shards: Shards,
    text_column: str | None,
    columns: dict[str, str | None],
    max_pixels: int,
) -> Reader:
    if shards.suffix == ".parquet":
        table = open_parquet(shards.root, shards.names, **columns)
        text = find_text_column(
            schema_of(shards.root / shards.names[0]),
            where=shards.names[0],
            text_column=text_column,
            taken=[table.image_column, table.label_column or ""],
        )
        return replace(table, text_column=text)
    max_bytes = largest_file(max_pixels)
    tars = open_tars(shards.root, shards.names, max_bytes=max_bytes, **columns)
    return replace(tars, is_captioned=True, text_column=text_column)
