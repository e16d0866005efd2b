import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from bezoar.engine.prefetch import prefetched


class Item:
    """Something that can be counted while it lives."""

    alive: ClassVar[weakref.WeakSet["Item"]] = weakref.WeakSet()

    def __init__(self) -> None:
        Item.alive.add(self)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("bezoar")]


class Source:
    def __init__(self, num: int, *, fails_at: int = -1) -> None:
        self.num, self.fails_at, self.made, self.closed = num, fails_at, 0, False

    def __iter__(self) -> Iterator[int]:
        try:
            for i in range(self.num):
                if i == self.fails_at:
                    raise ValueError(f"item {i}")
                self.made += 1
                yield i
        finally:
            self.closed = True


def test_items_come_in_order_and_nothing_is_left() -> None:
    source = Source(20)
    with prefetched(iter(source)) as items:
        assert list(items) == list(range(20))
    assert source.closed
    assert not threads()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()
    time.sleep(0.005)  # for what should not happen


def test_the_next_item_is_made_meanwhile_and_no_other() -> None:
    source = Source(9)
    with prefetched(iter(source)) as items:
        for i in items:
            goal = min(i + 2, 9)
            wait_until(lambda goal=goal: source.made >= goal)  # type: ignore[misc]
            assert source.made == goal


def test_at_most_two_items_are_alive() -> None:
    def made() -> Iterator[Item]:
        for _ in range(10):
            yield Item()

    with prefetched(made()) as items:
        for _ in range(9):
            item = next(items)
            wait_until(lambda: len(Item.alive) >= 2)
            assert len(Item.alive) == 2
            del item


def taken(source: Source, *, num: int, then: BaseException | None = None) -> list[int]:
    """Take ``num`` items, then fail."""
    with prefetched(iter(source)) as items:
        seen = [next(items) for _ in range(num)]
        if then is not None:
            raise then
    return seen


def test_an_error_comes_out_where_the_item_would() -> None:
    assert taken(Source(5, fails_at=2), num=2) == [0, 1]
    source = Source(5, fails_at=2)
    with pytest.raises(ValueError, match="item 2"):
        taken(source, num=3)
    assert source.closed
    assert not threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("work")])
def test_an_error_of_the_work_ends_the_thread_and_closes_the_items(
    error: BaseException,
) -> None:
    source = Source(5)
    with pytest.raises(type(error)):
        taken(source, num=1, then=error)
    assert source.closed
    assert not threads()
