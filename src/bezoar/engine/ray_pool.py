"""A pool of Ray workers: who has what in hand, and what becomes of it when one is lost.

Blocks are handed out one by one and by this process alone, instead of by Ray Data: it
knows at any time which blocks are out, so that their number is bounded, a lost worker
costs what it had in hand, and a worker that does not come back is not waited for.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, TypeVar

import torch

from bezoar.errors import EngineError

T = TypeVar("T")

_AHEAD = 2  # items per worker: one is worked on, one is there when it is done
_REACHED_IN = 10.0  # seconds


@dataclass(eq=False)
class _Task:
    """An item on its way."""

    item: Any
    losses: int = 0


@dataclass(eq=False)
class _Worker:
    """A worker, and what it was given, in this order."""

    actor: Any
    hands: dict[Any, _Task] = field(default_factory=dict)


class _Actor:
    """What a worker process runs."""

    def __init__(self, work: Callable[[Any], Any], num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self.work = work

    def ready(self) -> None:
        """Answer."""

    def run(self, item: Any) -> Any:
        """Return what the work makes of an item.

        Args:
            item: The item.
        """
        return self.work(item)


class Pool:
    """The workers of one run; nothing is started before the first item.

    Args:
        work: What they do with an item; it is pickled, once.
        address: Of a running cluster; None starts one on this machine.
        num_workers: How many; None takes as many as there is room for.
        cpus: Cores, and torch threads, of a worker.
        gpus: GPUs of a worker.
        retries: How often an item may lose its worker.
        patience_seconds: How long to wait while there is no worker at all.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        *,
        address: str | None,
        num_workers: int | None,
        cpus: int,
        gpus: float,
        retries: int,
        patience_seconds: float,
    ) -> None:
        self.work = work
        self.address = address
        self.num_workers = num_workers
        self.cpus, self.gpus = cpus, gpus
        self.retries = retries
        self.patience_seconds = patience_seconds
        self.starting: dict[Any, Any] = {}  # answer -> actor
        self.workers: list[_Worker] = []
        self.again: deque[_Task] = deque()
        self.failures = 0
        self.start: Callable[[], Any] | None = None

    def results(self, items: Iterator[T]) -> Iterator[Any]:
        """Iterate over the results.

        Args:
            items: The items.

        Yields:
            What the work made of each, in any order.

        Raises:
            EngineError: If no worker can be had, or an item lost too many.
        """
        tasks = map(_Task, items)
        first = next(tasks, None)
        if first is None:
            return
        ray = _library()
        self.again.append(first)
        self._start_all(ray)
        while True:
            self._hand_out(tasks)
            if not self.again and not any(w.hands for w in self.workers):
                return
            waited = [*self.starting, *(ref for w in self.workers for ref in w.hands)]
            patience = None if self.workers else self.patience_seconds
            ready, _ = ray.wait(waited, timeout=patience)
            if not ready:
                raise EngineError(
                    f"expected a worker within {patience:g} seconds, got none; look "
                    "whether the cluster has free cores and GPUs (ray status), or ask "
                    "for fewer per worker"
                )
            if ready[0] in self.starting:
                self._greet(ray, ready[0])
            else:
                yield from self._taken(ray, ready[0])

    def close(self) -> None:
        """End all workers."""
        actors = [*self.starting.values(), *(w.actor for w in self.workers)]
        if actors:
            import ray

            for actor in actors:
                ray.kill(actor)
        self.starting, self.workers = {}, []

    def _start_all(self, ray: ModuleType) -> None:
        with _connected(ray, self.address):
            there = ray.cluster_resources()
        room = int(there.get("CPU", 0) // self.cpus)
        if self.gpus > 0:
            room = min(room, int(there.get("GPU", 0) / self.gpus + 1e-6))
        if room < 1:
            raise EngineError(
                f"expected a cluster with room for {self.cpus} cores and "
                f"{self.gpus:g} GPUs of a worker, got {there.get('CPU', 0):g} and "
                f"{there.get('GPU', 0):g}; ask for fewer, or add machines"
            )
        _send_code(ray, self.work)
        actor = ray.remote(_Actor).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0
        )
        work = ray.put(self.work)
        self.start = lambda: actor.remote(work, self.cpus)
        for _ in range(self.num_workers or room):
            self._add()

    def _add(self) -> None:
        assert self.start is not None  # set before the first worker
        actor = self.start()
        self.starting[actor.ready.remote()] = actor

    def _hand_out(self, tasks: Iterator[_Task]) -> None:
        for _ in range(_AHEAD):  # everyone gets one before anyone gets two
            for worker in self.workers:
                if len(worker.hands) == _AHEAD:
                    continue
                task = self.again.popleft() if self.again else next(tasks, None)
                if task is None:
                    return
                worker.hands[worker.actor.run.remote(task.item)] = task

    def _greet(self, ray: ModuleType, answer: Any) -> None:
        actor = self.starting.pop(answer)
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            self.failures += 1
            if self.failures > self.retries:
                raise EngineError(
                    f"expected workers to start, got {self.failures} that did not "
                    f"({_last_line(error)}); install the same bezoar on all machines"
                ) from error
            self._add()
        else:
            self.failures = 0
            self.workers.append(_Worker(actor))

    def _taken(self, ray: ModuleType, ref: Any) -> Iterator[Any]:
        worker = next(w for w in self.workers if ref in w.hands)
        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            self._replace(ray, worker, error)
        else:
            del worker.hands[ref]
            yield result

    def _replace(self, ray: ModuleType, worker: _Worker, error: Exception) -> None:
        self.workers.remove(worker)
        ray.kill(worker.actor)  # no answer may mean that it only cannot be reached
        tasks = list(worker.hands.values())
        tasks[0].losses += 1  # the others were waiting
        if tasks[0].losses > self.retries:
            raise EngineError(
                f"expected a worker to finish a block, got {tasks[0].losses} that were "
                f"lost with it ({_last_line(error)}); lower the batch size or the "
                "block size if memory ran out, and run again to go on"
            ) from error
        self.again.extend(tasks)
        self._add()


def _library() -> ModuleType:
    # Nobody is told that Ray is used, whatever its own default is.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f"expected the library ray, got none that can be imported ({error}); run "
            "pip install 'bezoar[ray]'"
        ) from error
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str | None) -> Iterator[None]:
    try:
        if not ray.is_initialized():
            _check_reachable(address)
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else {"include_dashboard": False}),
            )
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"expected a Ray cluster at {address or 'this machine'!r}, got none "
            f"({_last_line(error)}); start one with 'ray start', or correct the address"
        ) from error


def _check_reachable(address: str | None) -> None:
    # Ray itself would go on trying for minutes.
    host, _, port = (address or "").rpartition(":")
    if host and "//" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_REACHED_IN).close()


def _send_code(ray: ModuleType, work: object) -> None:
    """Let classes of files that no worker can import travel with the work."""
    models = [value for value in _parts(work) if isinstance(value, torch.nn.Module)]
    names = {type(layer).__module__ for model in models for layer in model.modules()}
    for name in names - {"__main__"}:
        if name in sys.modules and not _importable(name):
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])


def _parts(value: object) -> Iterator[object]:
    inside = vars(value) if hasattr(value, "__dataclass_fields__") else value
    if isinstance(inside, dict):
        for part in inside.values():
            yield from _parts(part)
    else:
        yield value


def _importable(name: str) -> bool:
    # Not importlib.util.find_spec, which knows what was imported from anywhere.
    package = name.partition(".")[0]
    return PathFinder.find_spec(package) is not None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
