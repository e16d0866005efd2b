"""Blocks on the workers of a Ray cluster: other cores, GPUs and machines.

Each worker is a process that holds the method and the model, and is given a block at
a time by the process that reads the images and writes the results. So the files of a
run are those of a run in one process, and either can go on with what the other began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from bezoar.engine.ray_pool import Pool
from bezoar.errors import InputError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Works on blocks with a pool of Ray workers; give it to a ``Runtime``.

    What a lost worker or machine had in hand is given to another one; as long as there
    is none, one is started. A cluster of its own, on this machine, stays until the
    process ends, or ``ray.shutdown()``.

    Attributes:
        address: Of a running cluster, such as "auto" or "10.0.0.1:6379"; None takes
            the one that this process is connected to, or starts one on this machine.
        num_workers: How many; None takes as many as the cluster has room for.
        cpus_per_worker: Cores of a worker; also its number of torch threads.
        gpus_per_worker: GPUs of a worker, such as 0.5 for two on each; None takes one
            where the runtime's device is a GPU, else none.
        retries: How often a block may lose its worker before the run gives up.
        patience_seconds: How long to wait while there is no worker at all.

    Example:
        >>> from bezoar.runtime import Runtime
        >>> runtime = Runtime(engine=RayEngine(num_workers=2))
    """

    address: str | None = None
    num_workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    retries: int = 3
    patience_seconds: float = 300.0

    def __post_init__(self) -> None:
        counts = {
            "num_workers": 1 if self.num_workers is None else self.num_workers,
            "cpus_per_worker": self.cpus_per_worker,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(
                    f"expected {name} of at least 1, got {count}; correct it"
                )
        if (self.gpus_per_worker or 0) < 0 or self.retries < 0:
            raise InputError(
                f"expected gpus_per_worker and retries of at least 0, got "
                f"{self.gpus_per_worker} and {self.retries}; correct them"
            )

    @contextmanager
    def running(
        self, work: Callable[[T], R], items: Iterator[T], *, device: torch.device
    ) -> Iterator[Iterator[R]]:
        """Lend an iterator over what workers make of many items.

        Two items per worker are in flight at most. Errors of ``work`` come out here.

        Args:
            work: The function; it is pickled, once.
            items: Taken one by one, when a worker has room for one.
            device: Where the function computes; a GPU reserves GPUs.

        Yields:
            The results as they are finished, in any order. An ``EngineError`` follows
            where no worker can be had, or a block lost too many.
        """
        gpus = self.gpus_per_worker
        pool = Pool(
            work,
            address=self.address,
            num_workers=self.num_workers,
            cpus=self.cpus_per_worker,
            gpus=float(device.type == "cuda") if gpus is None else gpus,
            retries=self.retries,
            patience_seconds=self.patience_seconds,
        )
        try:
            yield pool.results(items)
        finally:
            pool.close()
