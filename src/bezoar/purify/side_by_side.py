"""Tiles side by side on a CPU: a thread each beats all threads on one tile at a time.

A tile is too small for its layers to keep many threads busy. What becomes of it does
not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    work: Callable[[T], R], tiles: Sequence[T], *, device: torch.device
) -> closing[Generator[tuple[T, R]]]:
    """Lend an iterator over what a function makes of tiles.

    On a CPU with several threads tiles share them: in whole rounds each tile has one,
    in the last round each has an equal part, and a tile that is alone has all. The
    caller's own number of threads is the same afterwards, also after an error.

    Args:
        work: The function; it must not depend on the order of the tiles.
        tiles: What it is called with.
        device: Where it computes; one that is no CPU takes tile after tile.

    Returns:
        A context; within it pairs of a tile and its result come in the order of the
        tiles, and the first error in that order; at its end nothing runs any more.

    Example:
        >>> with side_by_side(abs, [-1, -2], device=torch.device("cpu")) as done:
        ...     list(done)
        [(-1, 1), (-2, 2)]
    """
    num_threads = torch.get_num_threads() if device.type == "cpu" else 1
    return closing(_in_rounds(work, tiles, num_threads=num_threads))


def _in_rounds(
    work: Callable[[T], R], tiles: Sequence[T], *, num_threads: int
) -> Generator[tuple[T, R]]:
    def pair(tile: T) -> tuple[T, R]:
        return tile, work(tile)

    whole = len(tiles) - len(tiles) % num_threads
    for some in (tiles[:whole], tiles[whole:]):
        if min(len(some), num_threads) < 2:
            yield from map(pair, some)
        else:
            yield from _shared(pair, some, num_threads=num_threads)


def _shared(
    work: Callable[[T], R], tiles: Sequence[T], *, num_threads: int
) -> Generator[R]:
    workers = min(len(tiles), num_threads)
    pool = ThreadPoolExecutor(
        workers,
        thread_name_prefix="bezoar-tiles",
        initializer=torch.set_num_threads,
        initargs=(num_threads // workers,),
    )
    try:
        with pool:
            yield from pool.map(work, tiles)
    finally:
        # Else threads that others start later would begin with those of the pool.
        torch.set_num_threads(num_threads)
