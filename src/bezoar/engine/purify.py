"""Purify a source of any size with a method that treats image by image.

One that ranks all images first passes over the source twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import Field, asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from bezoar.data import ImageData, Unreadable
from bezoar.engine.kept_images import KeptImages
from bezoar.engine.local import BlockSource, run_blocks
from bezoar.engine.relay import Relay, digest
from bezoar.models import fingerprint
from bezoar.results import Purification, PurificationReport, Scores
from bezoar.runtime import Runtime
from bezoar.storage import RunLock

RANKING = "ranking"
"""Folder in the work folder for what a method that ranks came to."""


@runtime_checkable
class Purifier(Protocol):
    """Anything that takes poison out of images."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def purify(
        self, data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
    ) -> Purification:
        """Return the images without the poison.

        Args:
            data: The images; they stay as they are. A method may take networks as
                further keywords.
            seed: Seeds everything random.
            runtime: Where and how to run.
        """


@runtime_checkable
class BlockPurifier(Purifier, Protocol):
    """A purifier whose result for an image does not depend on the other images."""

    def conclude(
        self, rows: Scores, *, class_names: tuple[str, ...], seed: int, seconds: float
    ) -> PurificationReport:
        """Return the report on all images.

        Args:
            rows: The columns that ``purify`` returned, of all images.
            class_names: Names by class index.
            seed: The seed given.
            seconds: Wall-clock time of the work.
        """


@runtime_checkable
class RankedPurifier(BlockPurifier, Protocol):
    """A purifier that ranks all images, and then treats some of them one by one.

    Its ``purify`` takes the keyword ``only``: the ids of those, where the images are a
    part of the set.
    """

    def score(self, data: ImageData, *, runtime: Runtime) -> Scores:
        """Return what images are ranked by.

        Args:
            data: The images of a block. Networks come as further keywords.
            runtime: Where and how to run; progress counts the images of this block.
        """

    def select(self, scores: Scores) -> frozenset[str]:
        """Return the ids of the images to treat.

        Args:
            scores: What ``score`` returned, of all images.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class PurifiedSource:
    """A source that was purified block by block.

    Attributes:
        report: What was done to each image.
        unreadable: The images that could not be read, with the reasons.
        images: The purified images by id; give it to ``write_source`` as ``images``.
            It is fast for ids that are asked for in the order of the source.
    """

    report: PurificationReport
    unreadable: tuple[Unreadable, ...]
    images: KeptImages


def purify_source(
    source: BlockSource,
    *,
    method: BlockPurifier,
    image_size: tuple[int, int],
    networks: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> PurifiedSource:
    """Purify a source, with ``runtime.work_dir`` in memory for two blocks of images.

    The purified images are kept in the work folder, and a run that was killed goes on
    there with the same result. Without a work folder they are kept in memory. A method
    that ranks the images looks at all of them before it treats one.

    Args:
        source: The images.
        method: A purifier that treats image by image, once it has ranked them or not.
        image_size: Height and width that images are resized to.
        networks: Trained networks that ``method.purify`` takes, by keyword.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        What was done, and the images. An ``EmptyError`` follows when none can be read,
        a ``StorageError`` when the work folder holds other results, is in use or
        cannot be written.
    """
    start = time.perf_counter()
    given, folder = dict(networks or {}), runtime.work_dir
    key = digest(
        method=type(method).__name__,
        settings=asdict(method),
        networks={name: fingerprint(network) for name, network in given.items()},
        seed=seed,
        image_size=image_size,
        dtype=str(runtime.compute_dtype()),
        format=source.format,
        class_names=source.class_names,
        num_images=source.num_images,
    )
    relay = Relay(runtime.progress, stage="purify")
    with RunLock(folder, name=".purify.lock") if folder else nullcontext():
        only = _selected(
            source,
            method=method,
            networks=given,
            image_size=image_size,
            key=key,
            runtime=runtime,
        )
        if only is not None:
            key = digest(key=key, only=sorted(only))
        # Images of other settings or blocks are never taken for those of this run.
        kept = KeptImages(folder and folder / "images" / f"{key}-{runtime.block_size}")
        rows, unreadable = run_blocks(
            source,
            _Treating(
                method=method,
                keywords=given if only is None else {**given, "only": only},
                seed=seed,
                runtime=relay.inside(runtime),
            ),
            image_size=image_size,
            key=key,
            runtime=replace(runtime, progress=relay.between_blocks),
            stage="purify",
            keep=partial(_put_away, kept),
        )
    kept.check(rows.ids)
    report = method.conclude(
        rows,
        class_names=source.class_names,
        seed=seed,
        seconds=time.perf_counter() - start,
    )
    used = {name: fingerprint(network) for name, network in given.items()}
    settings = {**report.provenance.settings, **used}
    provenance = replace(report.provenance, settings=settings)
    report = replace(report, provenance=provenance)
    return PurifiedSource(report=report, unreadable=unreadable, images=kept)


def _selected(
    source: BlockSource,
    *,
    method: BlockPurifier,
    networks: Mapping[str, Any],
    image_size: tuple[int, int],
    key: str,
    runtime: Runtime,
) -> frozenset[str] | None:
    # What a method that ranks treats; None for one that treats every image.
    if not isinstance(method, RankedPurifier):
        return None
    relay = Relay(runtime.progress, stage="rank")
    folder = runtime.work_dir and runtime.work_dir / RANKING
    scores, _ = run_blocks(
        source,
        partial(method.score, runtime=relay.inside(runtime), **networks),
        image_size=image_size,
        key=key,
        runtime=replace(runtime, work_dir=folder, progress=relay.between_blocks),
        stage="rank",
    )
    return method.select(scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Treated:
    """What comes back of a block: a purification without what no run keeps."""

    data: ImageData
    columns: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Treating:
    """Purifies a block, here or on a worker that it was sent to."""

    method: BlockPurifier
    keywords: Mapping[str, Any]
    seed: int
    runtime: Runtime

    def __call__(self, data: ImageData) -> _Treated:
        done = self.method.purify(
            data, seed=self.seed, runtime=self.runtime, **self.keywords
        )
        return _Treated(data=done.data, columns=done.columns)


def _put_away(kept: KeptImages, done: _Treated) -> Scores:
    kept.add(done.data)
    return Scores(ids=done.data.ids, labels=done.data.labels, columns=done.columns)
