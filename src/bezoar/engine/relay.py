"""What all runs by block share: the name of a run, one count, and work to send."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from bezoar.runtime import Progress, Runtime

T = TypeVar("T")


def digest(**facts: object) -> str:
    """Return a short text for facts that plain values tell.

    Args:
        **facts: All that decides a result.

    Returns:
        A hexadecimal hash.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Relay:
    """Adds the images of earlier blocks to what a method reports within one.

    Args:
        report: Told about the whole run.
        stage: What the run does.
    """

    def __init__(self, report: Callable[[Progress], None], *, stage: str) -> None:
        self.report = report
        self.last = Progress(stage=stage, done=0, total=0)

    def between_blocks(self, progress: Progress) -> None:
        """Report what the run counted.

        Args:
            progress: All images of the finished blocks.
        """
        self.last = progress
        self.report(progress)

    def within_block(self, progress: Progress) -> None:
        """Report what the method counted.

        Args:
            progress: The images done in the block that is being treated.
        """
        last = self.last
        metrics = {**last.metrics, **progress.metrics}
        self.report(replace(last, done=last.done + progress.done, metrics=metrics))

    def inside(self, runtime: Runtime) -> Runtime:
        """Return where and how to run the work on one block.

        Args:
            runtime: Of the whole run.

        Returns:
            A runtime that reports here, or one that an engine can send to its workers.
        """
        here = runtime.for_parts()
        if runtime.engine is None:
            return replace(here, progress=self.within_block)
        return here


class OnDemand(Generic[T]):
    """A value that is made when it is first asked for, or sent to a worker.

    Args:
        make: Makes it.

    Example:
        >>> value = OnDemand(lambda: print("made") or 3)
        >>> value(), value()
        made
        (3, 3)
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def __call__(self) -> T:
        """Return the value."""
        if not self._made:
            self._made.append(self._make())
        return self._made[0]

    def __reduce__(
        self,
    ) -> tuple[type[OnDemand[T]], tuple[Callable[[], T]]]:
        return OnDemand, (partial(_itself, self()),)


def _itself(value: T) -> T:
    return value
