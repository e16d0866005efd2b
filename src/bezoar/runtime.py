"""Where and how a method runs: nothing here may change a result beyond rounding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report from a running method.

    Attributes:
        stage: What is being done, one word.
        done: How much of it.
        total: Out of how much; 0 when that is not known.
        metrics: Figures of the moment, by name.
    """

    stage: str
    done: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)


def _silent(_: Progress) -> None:
    pass


@runtime_checkable
class Engine(Protocol):
    """Where blocks of images are worked on, when not in this process."""

    def running(
        self, work: Callable[[T], R], items: Iterator[T], *, device: torch.device
    ) -> AbstractContextManager[Iterator[R]]:
        """Lend an iterator over what a function makes of many items.

        Args:
            work: The function; it must not depend on the order of the items.
            items: Taken one by one, when there is room for one.
            device: Where the function computes.

        Returns:
            A context; within it the results come as they are finished, in any order,
            and at its end nothing runs any more.
        """


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how to run.

    Attributes:
        device: Where a method works; results come back to the CPU.
        dtype: Type of the networks' arithmetic; None takes bfloat16 where the
            device computes in it natively, else float32. State stays float32.
        batch_size: Images per forward pass.
        block_size: Images per block of a streamed run; one block is one file that
            a restarted run does not compute again.
        progress: Called after every batch or epoch.
        work_dir: Folder for what a killed run needs to go on; None keeps nothing.
        engine: Who works on the blocks of a streamed run, such as
            :class:`bezoar.RayEngine`; None does so in this process.
        distributed: Whether a training is shared with the other processes of
            ``torch.distributed``, all of which make the same call.
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype | None = None
    batch_size: int = 64
    block_size: int = 1024
    progress: Callable[[Progress], None] = _silent
    work_dir: Path | None = None
    engine: Engine | None = None
    distributed: bool = False

    def for_parts(self) -> Runtime:
        """Return where and how to run the work on one part, here or on a worker.

        Returns:
            A runtime that keeps nothing. One for an engine can be sent to its workers:
            it reports to nobody, and computes in the type that this machine chose, on
            whichever device of this kind the worker was given.
        """
        here = replace(self, work_dir=None)
        if self.engine is None:
            return here
        return replace(
            here,
            progress=_silent,
            engine=None,
            dtype=self.compute_dtype(),
            device=torch.device(self.device.type),
        )

    def compute_dtype(self) -> torch.dtype:
        """Return the type that networks compute in.

        Returns:
            ``dtype`` if it was given, else the fastest that the device has.
        """
        if self.dtype is not None:
            return self.dtype
        return torch.bfloat16 if _has_bfloat16(self.device.type) else torch.float32


@cache
def _has_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False) is True
    if device_type == "cpu":  # without these instructions bf16 is emulated, and slow
        return torch.cpu.get_capabilities().get("avx512_bf16", False) is True
    return False


def generator(seed: int, *stream: int | str) -> torch.Generator:
    """Return an independent CPU generator for one named stream of one seed.

    Args:
        seed: The seed given to the method.
        *stream: Names of the stream, such as ``"noise"`` and an image's key.

    Returns:
        A generator; equal arguments give equal numbers on every machine.

    Example:
        >>> a = torch.rand(2, generator=generator(0, "noise", "cat/1.png"))
        >>> b = torch.rand(2, generator=generator(0, "noise", "cat/1.png"))
        >>> c = torch.rand(2, generator=generator(0, "noise", "cat/2.png"))
        >>> a.equal(b), a.equal(c)
        (True, False)
    """
    digest = hashlib.blake2b(repr((seed, *stream)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
