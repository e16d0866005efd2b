"""An image set written back in the format it came in."""

from __future__ import annotations

from pathlib import Path

from bezoar.data.caption_files import CaptionFileReader
from bezoar.data.choice import Choice, Images, Keep, png_name
from bezoar.data.folders import FolderReader
from bezoar.data.hub import HubReader
from bezoar.data.parquet import ParquetReader
from bezoar.data.records import largest_file
from bezoar.data.saved import SavedReader
from bezoar.data.source import ImageSource
from bezoar.data.staging import staged
from bezoar.data.tars import TarReader
from bezoar.data.write_caption_file import write_caption_file
from bezoar.data.write_tables import write_hub, write_parquet, write_saved
from bezoar.data.write_tars import write_tars
from bezoar.errors import EmptyError, InputError


def write_source(
    source: ImageSource, out: Path, *, keep: Keep = None, images: Images = None
) -> int:
    """Write a set, or a part of it, in the format it came in.

    What is kept stays as it is, byte for byte, with all its columns or members. Rows
    that hold no file at all (links that leave the folder, tables with paths alone) are
    left out. A set from the Hub becomes a parquet file. An ``InputError`` says that
    ``out`` is taken or in the set, that an id is not in the set, or that a name in an
    archive leaves it.

    Args:
        source: The set; it is only read.
        out: A new or empty folder; a new file also does where the set is one file.
        keep: The ids to keep, or a test of them; None keeps all.
        images: New images by id, uint8 (c, h, w), stored as PNG without loss; a file
            that was of another kind gets the suffix ``.png``. None, or None for an
            id, leaves them as they are.

    Returns:
        How many images were written.

    Raises:
        EmptyError: If nothing is kept; nothing is written then.
    """
    choice = Choice(keep, images)
    with staged(Path(out), sources=_sources(source)) as place:
        written = _write(source, place, choice, suffix=Path(out).suffix.lower())
        choice.check_all_seen()
        if written == 0:
            raise EmptyError(
                f"expected at least one image of {source.spec!r} to keep, got none; "
                "nothing was written"
            )
    return written


def _sources(source: ImageSource) -> list[Path]:
    reader = source.reader
    if isinstance(reader, ParquetReader | TarReader):
        files = [reader.root / shard for shard in reader.shards]
        return [Path(source.spec)] if Path(source.spec).is_dir() else files
    if isinstance(reader, CaptionFileReader):
        return [reader.path.parent]
    return [reader.root] if isinstance(reader, FolderReader | SavedReader) else []


def _write(source: ImageSource, place: Path, choice: Choice, *, suffix: str) -> int:
    reader = source.reader
    match reader:
        case FolderReader():
            max_bytes = largest_file(source.max_pixels)
            return _write_folder(reader, place, choice, max_bytes=max_bytes)
        case ParquetReader():
            targets = _targets(reader.shards, place, suffix, ".parquet")
            return write_parquet(reader, targets, choice)
        case TarReader():
            return write_tars(
                reader, _targets(reader.shards, place, suffix, ".tar"), choice
            )
        case SavedReader():
            return write_saved(reader, place, choice)
        case HubReader():
            return write_hub(reader, place, choice)
        case CaptionFileReader():
            max_bytes = largest_file(source.max_pixels)
            return write_caption_file(reader, place, choice, max_bytes=max_bytes)
    raise InputError(
        f"expected a source that open_source made, got one that reads by "
        f"{type(reader).__name__}; open it again"
    )


def _targets(
    shards: tuple[str, ...], place: Path, suffix: str, own: str
) -> dict[str, Path]:
    """Return where each shard goes: below the place, or the place itself for one."""
    if len(shards) == 1 and suffix == own:
        return {shards[0]: place}
    return {shard: place / shard for shard in shards}


def _write_folder(
    reader: FolderReader, place: Path, choice: Choice, *, max_bytes: int
) -> int:
    for name in ("", *reader.classes.names):  # an empty class keeps its number
        (place / name).mkdir(parents=True)
    written = 0
    for record in reader.records():
        if not choice.keeps(record.id) or record.path is None:
            continue
        data, name = choice.png(record.id), record.id
        if data is None:
            try:
                data = record.read(max_bytes=max_bytes)
            except InputError:
                continue  # it was listed as unreadable; there is nothing to copy
        else:
            name = png_name(
                name,
                is_taken=lambda n: (reader.root / n).exists() or (place / n).exists(),
            )
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
        written += 1
    return written
