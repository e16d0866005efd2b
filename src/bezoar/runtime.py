"""Where and how a method runs: nothing here may change a result beyond rounding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch


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
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype | None = None
    batch_size: int = 64
    block_size: int = 1024
    progress: Callable[[Progress], None] = _silent
    work_dir: Path | None = None

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
