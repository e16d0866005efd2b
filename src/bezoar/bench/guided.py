"""Chance that is read from bytes, so that a fuzzer can steer what is made by it."""

from __future__ import annotations

import random


class Guided(random.Random):
    """A source of chance whose numbers are the bits of some bytes, then zeros.

    A fuzzer that follows coverage changes the bytes, and so each choice by itself,
    where a seed would change all of them at once.

    Args:
        content: Where the numbers come from.

    Example:
        >>> Guided(bytes([3, 0])).choice("abcdefgh")
        'd'
        >>> Guided(b"").random()
        0.0
    """

    def __new__(cls, content: bytes) -> Guided:  # noqa: ARG004
        """Return one that is not seeded yet."""
        return super().__new__(cls)

    def __init__(self, content: bytes) -> None:
        super().__init__(0)
        self._content, self._place = content, 0

    def getrandbits(self, k: int, /) -> int:
        """Return a number of so many bits.

        Args:
            k: How many; each number begins with a byte of its own.

        Returns:
            The number.
        """
        size = (k + 7) // 8
        found = self._content[self._place : self._place + size]
        self._place += size
        return int.from_bytes(found, "little") & ((1 << k) - 1)

    def random(self) -> float:
        """Return a number from 0 to 1, of one byte.

        Returns:
            One of 256 numbers.
        """
        return self.getrandbits(8) / 256

    def randbytes(self, n: int) -> bytes:
        """Return bytes.

        Args:
            n: How many.

        Returns:
            The next ones.
        """
        return self.getrandbits(8 * n).to_bytes(n, "little")
