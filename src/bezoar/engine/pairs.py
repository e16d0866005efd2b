"""Suspicious pairs in a source of any size, block by block, here or with an engine."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import Field, asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from bezoar.data import Block, PairData, PairSource, Unreadable
from bezoar.engine.local import run_blocks
from bezoar.engine.relay import Relay, digest
from bezoar.metrics import scoring_copy
from bezoar.models import DualEncoder, fingerprint
from bezoar.results import Detection, Scores
from bezoar.runtime import Runtime


@runtime_checkable
class PairBlockDetector(Protocol):
    """A detector whose score of a pair does not depend on the other pairs."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def score(
        self,
        data: PairData,
        *,
        model: DualEncoder,
        reference: DualEncoder | None,
        seed: int,
        runtime: Runtime,
    ) -> Scores:
        """Return the raw columns of one block.

        Args:
            data: The pairs of the block.
            model: The suspect model.
            reference: A clean model, if there is one.
            seed: The seed given.
            runtime: Where and how to run; progress counts the pairs of this block.
        """

    def conclude(
        self, scores: Scores, *, class_names: tuple[str, ...], seed: int, seconds: float
    ) -> Detection:
        """Return the verdict on all pairs.

        Args:
            scores: The raw columns of all pairs.
            class_names: Names by class index.
            seed: The seed given.
            seconds: Wall-clock time of the work so far.
        """


def detect_pair_source(
    source: PairSource,
    *,
    method: PairBlockDetector,
    model: DualEncoder,
    reference: DualEncoder | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> tuple[Detection, tuple[Unreadable, ...]]:
    """Detect suspicious pairs in a source, in memory for two blocks of them.

    With ``runtime.work_dir`` a run that was killed goes on where it was and gives the
    same scores.

    Args:
        source: The pairs.
        method: A detector that scores pair by pair.
        model: The suspect model; it is left as it was.
        reference: A clean model of the same kind, left as it was.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        The detection, and the pairs that could not be read. An ``EmptyError`` follows
        when none can be read, a ``StorageError`` when the work folder holds other
        results, is in use or cannot be written.
    """
    start = time.perf_counter()
    size = (model.resolution, model.resolution)
    relay = Relay(runtime.progress, stage="score")
    scores, unreadable = run_blocks(
        _Rows(source),
        _Scoring(
            method=method,
            model=model,
            reference=reference,
            seed=seed,
            runtime=relay.inside(runtime),
        ),
        image_size=size,
        key=digest(
            method=type(method).__name__,
            settings=asdict(method),
            model=fingerprint(model),
            reference=None if reference is None else fingerprint(reference),
            seed=seed,
            dtype=str(runtime.compute_dtype()),
            format=source.format,
            num_pairs=source.num_pairs,
        ),
        runtime=replace(runtime, progress=relay.between_blocks),
    )
    found = method.conclude(
        scores,
        class_names=source.class_names,
        seed=seed,
        seconds=time.perf_counter() - start,
    )
    return found, unreadable


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scoring:
    """Scores a block, here or on a worker that it was sent to."""

    method: PairBlockDetector
    model: DualEncoder
    reference: DualEncoder | None
    seed: int
    runtime: Runtime
    fast: dict[str, DualEncoder] = field(default_factory=dict, init=False)

    def __call__(self, data: Any) -> Scores:
        return self.method.score(
            data,
            model=self._made("model", data),
            reference=None if self.reference is None else self._made("reference", data),
            seed=self.seed,
            runtime=self.runtime,
        )

    def _made(self, name: str, data: PairData) -> DualEncoder:
        # Once in each process, where it runs: a worker may have another device.
        if name not in self.fast:
            given = getattr(self, name)
            self.fast[name] = scoring_copy(given, data.images, runtime=self.runtime)
        return self.fast[name]


@dataclass(frozen=True)
class _Rows:
    """A source of pairs, as what goes through blocks of images sees it."""

    source: PairSource

    @property
    def format(self) -> str:
        """How the pairs are stored."""
        return self.source.format

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index."""
        return self.source.class_names

    @property
    def num_images(self) -> int | None:
        """How many rows there are."""
        return self.source.num_pairs

    def blocks(
        self, block_size: int, *, image_size: tuple[int, int], skip: Container[int] = ()
    ) -> Iterator[Block]:
        """Iterate over blocks; what they hold has captions besides.

        Args:
            block_size: Pairs per block.
            image_size: Height and width to resize to.
            skip: Blocks that are not wanted, and not decoded.

        Returns:
            The blocks.
        """
        found = self.source.blocks(block_size, image_size=image_size, skip=skip)
        return cast(Iterator[Block], found)
