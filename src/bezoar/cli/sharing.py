"""A training of the command line, alone or as one of the processes of torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from bezoar.cli.options import Running
from bezoar.cli.progress import bars
from bezoar.errors import InputError
from bezoar.runtime import Runtime
from bezoar.storage import RunLock
from bezoar.train import Ranks


@contextmanager
def training_of(path: Path, running: Running) -> Iterator[tuple[Ranks, Runtime]]:
    """Prepare the training of a file of weights.

    Args:
        path: The file; the checkpoint lies in a hidden folder beside it, which is
            gone when the training is over.
        running: On what to run; with device "auto" each process takes its own GPU.

    Yields:
        The place of this process, of which the first alone writes and shows progress;
        and where and how to run.
    """
    work_dir = path.with_name(f".{path.stem}.training")
    ranks = Ranks(int(os.environ.get("RANK", "0")), _num_processes())
    lock = RunLock(work_dir) if ranks.leads else nullcontext()
    shown = bars() if ranks.leads else nullcontext(Runtime().progress)
    with lock, shown as report:
        runtime = running.runtime(report, work_dir=work_dir)
        if ranks.size > 1:
            runtime = replace(runtime, distributed=True, device=_own(running))
        with _joined(ranks, runtime.device):
            yield ranks, runtime
        if isinstance(lock, RunLock):
            lock.path.unlink(missing_ok=True)
    with suppress(OSError):  # it is empty, unless another training has begun
        if ranks.leads:
            work_dir.rmdir()


def check_one_process(what: str) -> None:
    """Refuse to share a training that cannot be shared, before anything is read.

    Args:
        what: What is trained.

    Raises:
        InputError: If torchrun started several processes.
    """
    if _num_processes() > 1:
        raise InputError(
            f"expected a training of {what} in one process, got {_num_processes()}; "
            "start it without torchrun"
        )


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _own(running: Running) -> torch.device:
    device = running.torch_device()
    if device.type != "cuda" or running.device != "auto":
        return device
    place = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", place % torch.cuda.device_count())


@contextmanager
def _joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    if ranks.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        distributed.barrier()  # nobody leaves while another still waits for him
    finally:
        distributed.destroy_process_group()
