"""Whether an id came before, in eight bytes for each id."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray


class Seen:
    """The hashes of many ids, in few sorted runs; a set of texts takes ten times that.

    Args:
        known: Ids that have come already.

    Example:
        >>> seen = Seen()
        >>> seen.add(["a", "b"]), seen.add(["c", "b"]), seen.add(["d", "d"])
        ([], ['b'], ['d'])
    """

    def __init__(self, known: Iterable[Collection[str]] = ()) -> None:
        self._runs: list[NDArray[np.int64]] = []  # each shorter than the one before
        for ids in known:
            self.add(ids)

    def add(self, ids: Collection[str]) -> list[str]:
        """Add ids, and return those that may have come before.

        Args:
            ids: The next ones.

        Returns:
            Each id that comes twice among them, or that has the hash of an earlier
            one; that is the same id but for one set of ten million in a hundred
            thousand.
        """
        hashes = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
        again = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            places = run.searchsorted(hashes).clip(max=len(run) - 1)
            again |= run[places] == hashes
        _, first = np.unique(hashes, return_index=True)
        again[np.setdiff1d(np.arange(len(hashes)), first)] = True
        self._merge(np.sort(hashes))
        return [name for name, is_again in zip(ids, again, strict=True) if is_again]

    def _merge(self, run: NDArray[np.int64]) -> None:
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
