"""Run a per-image method over a source, block by block, here or with an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from bezoar.data import Block, ImageData, PairBlock, Unreadable, join
from bezoar.data.sampling import Sampler
from bezoar.engine.blocks import (
    BlockScores,
    block_key,
    finished_blocks,
    write_block,
)
from bezoar.engine.prefetch import prefetched
from bezoar.engine.unique import Seen
from bezoar.errors import EmptyError, InputError, StorageError
from bezoar.results import Scores
from bezoar.runtime import Progress, Runtime
from bezoar.storage import RunLock

COLLECT_BLOCK = 256  # collect holds two blocks; it has no runtime to ask


@runtime_checkable
class BlockSource(Protocol):
    """Where images come from, block by block; an ``ImageSource`` is one."""

    @property
    def format(self) -> str:
        """How the images are stored."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index; empty where there are no labels."""

    @property
    def num_images(self) -> int | None:
        """How many images there are, readable or not; None if that is not known."""

    def blocks(
        self, block_size: int, *, image_size: tuple[int, int], skip: Container[int] = ()
    ) -> Iterator[Block]:
        """Iterate over blocks; a block always holds the same rows.

        Args:
            block_size: Images per block.
            image_size: Height and width to resize to.
            skip: Blocks that are not wanted, and not decoded.
        """


def run_blocks(
    source: BlockSource,
    work: Callable[[ImageData], Any],
    *,
    image_size: tuple[int, int],
    key: str,
    runtime: Runtime,
    stage: str = "score",
    keep: Callable[[Any], Scores] | None = None,
) -> tuple[Scores, tuple[Unreadable, ...]]:
    """Score a source block by block, in memory for two blocks of images.

    The next block is decoded while one is scored. With ``runtime.work_dir`` every
    finished block is kept in its folder ``blocks``, and a run that was killed goes on
    from there with the same result, with the same engine or another: ``work`` may run
    elsewhere, what is written is written here.

    Args:
        source: The images.
        work: Scores one block; it must not look at other blocks. An engine sends it to
            its workers, so that it has to be something that can be pickled.
        image_size: Height and width that images are resized to.
        key: Digest of everything that the scores depend on, apart from the block and
            image size; blocks of another key are refused.
        runtime: Block size, progress, work folder and engine.
        stage: What the progress calls the work.
        keep: Called in this process with what ``work`` returned, where that is more
            than scores; it puts the rest away and returns the scores.

    Returns:
        The scores of all images that could be read, in the order of the source, and
        the images that could not. An ``EmptyError`` follows when there is none, a
        ``StorageError`` when the work folder holds other results, is in use or cannot
        be written.
    """
    folder = runtime.work_dir and runtime.work_dir / "blocks"
    key = block_key(key, block_size=runtime.block_size, image_size=image_size)
    with RunLock(folder) if folder else nullcontext():
        done = finished_blocks(folder, key=key) if folder else {}
        seen = Seen(block.ids for block in done.values())
        restored = sum(map(len, done.values()))
        meter = _Meter(source, runtime, restored=restored, stage=stage)
        blocks = source.blocks(
            runtime.block_size, image_size=image_size, skip=frozenset(done)
        )
        if restored == source.num_images:  # to skip rows, a source has to read them
            blocks = iter(())
        with prefetched(blocks) as coming, _worked(work, coming, runtime) as finished:
            for block in finished:
                _check_new(block.ids, seen, done)
                result = _scores(block, keep)
                if folder:
                    write_block(folder, block.index, result, key=key)
                done[block.index] = result
                meter.add(len(result))
    _check_whole(done, source)
    return _joined([done[index] for index in sorted(done)])


def sample_source(
    source: BlockSource,
    num_images: int,
    *,
    image_size: tuple[int, int],
    seed: int,
    runtime: Runtime,
) -> ImageData:
    """Draw a sample in one pass; see :mod:`bezoar.data.sampling` for the rule.

    Args:
        source: Where to draw from.
        num_images: How many images to draw, at least 1.
        image_size: Height and width that images are resized to.
        seed: Another seed draws another sample.
        runtime: Block size and progress.

    Returns:
        Up to ``num_images`` images; an ``EmptyError`` follows when none can be read.
    """
    sampler = Sampler(num_images=num_images, seed=seed)
    done = 0
    blocks = source.blocks(runtime.block_size, image_size=image_size, skip=())
    with prefetched(blocks) as coming:
        for block in coming:
            if block.data is not None:
                sampler.add(block.data)
            done += _num_rows(block)
            total = source.num_images or 0
            runtime.progress(Progress(stage="sample", done=done, total=total))
    return sampler.result()


def collect(
    source: BlockSource, ids: Sequence[str], *, image_size: tuple[int, int]
) -> ImageData:
    """Read a few images by their ids in one pass.

    Args:
        source: Where to read from.
        ids: The images to read, each at most once.
        image_size: Height and width that images are resized to.

    Returns:
        The images in the order of ``ids``.

    Raises:
        InputError: If there are no ids, or not all of them can be read.
    """
    missing = set(ids)
    parts: list[ImageData] = []
    blocks = source.blocks(COLLECT_BLOCK, image_size=image_size, skip=())
    with prefetched(blocks) as coming:
        for block in coming:
            if not missing:
                break
            if block.data is None or missing.isdisjoint(block.data.ids):
                continue
            here = [i for i, name in enumerate(block.data.ids) if name in missing]
            parts.append(block.data.take(torch.tensor(here)))
            missing.difference_update(parts[-1].ids)
    if missing or not parts:
        raise InputError(
            f"expected to read {len(ids)} images by their ids, got none for "
            f"{len(missing)}, such as {min(missing, default='')!r}; give the data that "
            "the ids are from"
        )
    found = join(parts)
    place = {name: i for i, name in enumerate(found.ids)}
    return found.take(torch.tensor([place[name] for name in ids]))


class _Meter:
    """Counts images and reports them."""

    def __init__(
        self, source: BlockSource, runtime: Runtime, *, restored: int, stage: str
    ) -> None:
        self.stage = stage
        self.total = source.num_images or 0
        self.runtime = runtime
        self.restored = self.done = restored
        self.start = time.perf_counter()
        runtime.progress(Progress(stage=stage, done=self.done, total=self.total))

    def add(self, num_images: int) -> None:
        self.done += num_images
        seconds = time.perf_counter() - self.start
        rate = (self.done - self.restored) / max(seconds, 1e-9)
        self.runtime.progress(
            Progress(
                stage=self.stage,
                done=self.done,
                total=self.total,
                metrics={"images_per_second": rate},
            )
        )


def _num_rows(block: Block) -> int:
    return len(block.unreadable) + (0 if block.data is None else len(block.data))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Finished:
    """A block without its images, and what the work made of them."""

    index: int
    ids: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    result: Any


@dataclass(frozen=True, eq=False)
class _Work:
    """The work on a block of images or pairs, here or elsewhere."""

    work: Callable[[Any], Any]

    def __call__(self, block: Block | PairBlock) -> _Finished:
        data = block.data
        return _Finished(
            index=block.index,
            ids=() if data is None else data.ids,
            unreadable=block.unreadable,
            result=None if data is None else self.work(data),
        )


def _worked(
    work: Callable[[ImageData], Any], blocks: Iterator[Block], runtime: Runtime
) -> AbstractContextManager[Iterator[_Finished]]:
    if runtime.engine is None:
        return nullcontext(map(_Work(work), blocks))
    return runtime.engine.running(_Work(work), blocks, device=runtime.device)


def _check_new(
    ids: tuple[str, ...], seen: Seen, done: Mapping[int, BlockScores]
) -> None:
    for name in seen.add(ids):
        # Or it has the hash of another.
        if any(name in block.ids for block in done.values()) or ids.count(name) > 1:
            raise InputError(
                f"expected unique ids, got {name!r} more than once; rename one, or "
                "choose another --out if the data changed since it was begun"
            )


def _scores(block: _Finished, keep: Callable[[Any], Scores] | None) -> BlockScores:
    if not block.ids:
        return BlockScores(scores=None, unreadable=block.unreadable)
    scores: Scores = block.result if keep is None else keep(block.result)
    if scores.ids != block.ids:
        raise InputError(
            f"expected the scores of the {len(block.ids)} images given, in their "
            f"order, got {len(scores.ids)} scores of others; mend the method's score()"
        )
    return BlockScores(scores=scores, unreadable=block.unreadable)


def _check_whole(done: Mapping[int, BlockScores], source: BlockSource) -> None:
    found = sum(map(len, done.values()))
    total = source.num_images if source.num_images is not None else found
    if sorted(done) != list(range(len(done))) or found != total:
        raise StorageError(
            f"expected blocks 0 to {len(done) - 1} with {total} images together, got "
            f"{found} images in {len(done)} blocks up to {max(done, default=0)}: the "
            "data changed during the run; choose another --out or remove it"
        )


def _joined(blocks: Sequence[BlockScores]) -> tuple[Scores, tuple[Unreadable, ...]]:
    unreadable = tuple(item for block in blocks for item in block.unreadable)
    parts = [block.scores for block in blocks if block.scores is not None]
    if not parts:
        why = f", the first because of {unreadable[0].reason!r}" if unreadable else ""
        raise EmptyError(
            f"expected images to score, got {len(unreadable)} files and none that can "
            f"be read{why}; check the path and the format"
        )
    return Scores.join(parts), unreadable
