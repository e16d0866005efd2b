"""The next item is made while the present one is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetched(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Lend an iterator that makes one item ahead, in a thread of its own.

    At most two items are alive: the one that was handed out and the next. An error of
    ``items`` comes out where the item would have. When the block ends, well or not,
    the thread has ended and ``items`` is closed.

    Args:
        items: Where the items come from; nothing else may use it meanwhile.

    Yields:
        The same items, in order.

    Example:
        >>> with prefetched(iter("abc")) as letters:
        ...     list(letters)
        ['a', 'b', 'c']
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="bezoar-prefetch") as pool:
            yield _ahead(items, pool)
    finally:
        if close := getattr(items, "close", None):
            close()


def _ahead(items: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    coming = pool.submit(_take_one, items)
    while one := coming.result():
        coming = pool.submit(_take_one, items)
        yield one.pop()  # popped, or it would stay alive until the next two are made


def _take_one(items: Iterator[T]) -> list[T]:
    return list(islice(items, 1))
