"""Finished blocks on disk: what a killed run finds when it starts again."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bezoar.data import UNLABELLED, Unreadable
from bezoar.errors import StorageError
from bezoar.results import Scores
from bezoar.storage import Column, Table, check_column_names, read_table, write_table

FORMAT = "1"
_FILE = re.compile(r"\d{8}\.parquet")


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockScores:
    """What came of one block of images.

    Attributes:
        scores: Of the images that could be read; None if there was none.
        unreadable: The images that could not, with the reasons.
    """

    scores: Scores | None
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.unreadable) + len(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The images that could be read."""
        return self.scores.ids if self.scores else ()


def block_key(key: str, *, block_size: int, image_size: tuple[int, int]) -> str:
    """Return the key of a run's blocks, which names their rows as well.

    Args:
        key: Digest of everything else that the scores depend on.
        block_size: Images per block.
        image_size: Height and width that images are resized to.

    Returns:
        A hexadecimal digest.
    """
    text = json.dumps([key, block_size, *image_size])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_block(folder: Path, index: int, block: BlockScores, *, key: str) -> None:
    """Write one finished block, whole or not at all.

    Args:
        folder: Folder of the blocks.
        index: Which block of the source it is.
        block: What came of it.
        key: Digest of everything that the scores depend on.
    """
    metadata = {
        "format": FORMAT,
        "key": key,
        "rows": str(len(block)),
        "unreadable": str(len(block.unreadable)),
        "blake2b": _checksum(block, key),
    }
    write_table(block_path(folder, index), _pack(block), metadata=metadata)


def read_block(path: Path, *, key: str) -> BlockScores | None:
    """Read one finished block.

    Args:
        path: The block's file.
        key: Digest of everything that the scores depend on.

    Returns:
        What came of the block; None if the file is damaged or of another format, and
        the block has to be computed again.

    Raises:
        StorageError: If the file is sound but holds results of other settings.
    """
    try:
        table = read_table(path)
        block = _unpack(table)
        found = table.metadata["key"]
        checks = table.metadata["format"], table.metadata["blake2b"]
        is_sound = checks == (FORMAT, _checksum(block, found))
    except (StorageError, KeyError, ValueError, TypeError):
        return None
    if not is_sound:
        return None
    if found != key:
        raise StorageError(
            f"expected blocks of this run in {str(path.parent)!r}, got a folder that "
            "holds results of other settings, another model or other data; choose "
            "another --out or remove it"
        )
    return block


def finished_blocks(folder: Path, *, key: str) -> dict[int, BlockScores]:
    """Read all blocks that an earlier run finished, and clear what it left half done.

    Args:
        folder: Folder of the blocks; nothing else may write to it meanwhile.
        key: Digest of everything that the scores depend on.

    Returns:
        The sound blocks by index.

    Raises:
        StorageError: If the folder cannot be read, or holds other results.
    """
    done = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") and ".parquet." in path.name:
                _cleared(path)  # what a run that was killed had begun to write
            elif _FILE.fullmatch(path.name) and (block := read_block(path, key=key)):
                done[int(path.stem)] = block
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"expected to read the blocks in {str(folder)!r}, got {error.strerror}; "
            "choose another --out"
        ) from error
    return done


def block_path(folder: Path, index: int) -> Path:
    """Return the file of one block.

    Args:
        folder: Folder of the blocks.
        index: Which block of the source it is.

    Returns:
        Its path.
    """
    return folder / f"{index:08d}.parquet"


def _cleared(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _pack(block: BlockScores) -> dict[str, Column]:
    bad = block.unreadable
    reasons = [u.reason for u in bad]
    if block.scores is None:
        labels = torch.full((len(bad),), UNLABELLED)
        return {"id": [u.id for u in bad], "label": labels, "reason": reasons}
    scores = block.scores
    check_column_names(scores.columns)
    return {  # the images that could not be read come last
        "id": [*scores.ids, *(u.id for u in bad)],
        "label": _lengthened(scores.labels, len(bad), UNLABELLED),
        "reason": [*[""] * len(scores.ids), *reasons],
        **{k: _lengthened(v, len(bad), math.nan) for k, v in scores.columns.items()},
    }


def _unpack(table: Table) -> BlockScores:
    columns = dict(table.columns)
    names = cast("list[str]", columns.pop("id"))
    reasons = cast("list[str]", columns.pop("reason"))
    num = len(names) - int(table.metadata["unreadable"])
    numbers = {k: _numbers(v)[:num] for k, v in columns.items()}
    labels = numbers.pop("label")
    scores = Scores(ids=tuple(names[:num]), labels=labels, columns=numbers)
    bad = zip(names[num:], reasons[num:], strict=True)
    return BlockScores(
        scores=scores if num > 0 else None,
        unreadable=tuple(Unreadable(id=name, reason=why) for name, why in bad),
    )


def _numbers(column: Tensor | list[object]) -> Tensor:
    if isinstance(column, list):
        raise TypeError("a column of numbers has empty cells")
    return column


def _lengthened(values: Tensor, extra: int, fill: float) -> Tensor:
    return torch.cat([values, values.new_full((extra,), fill)])


def _checksum(block: BlockScores, key: str) -> str:
    bad = [(u.id, u.reason) for u in block.unreadable]
    digest = hashlib.blake2b(json.dumps([key, block.ids, bad]).encode(), digest_size=16)
    if block.scores:
        columns = {"label": block.scores.labels, **block.scores.columns}
        for name, values in columns.items():
            digest.update(json.dumps([name, str(values.dtype)]).encode())
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
