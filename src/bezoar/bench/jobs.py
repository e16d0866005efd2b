"""Jobs side by side, one core each: what networks that are small share none well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

from bezoar.runtime import Progress

_PROCESSES = 2
_Result = TypeVar("_Result")


def run_jobs(
    jobs: Mapping[str, Callable[[], _Result]],
    *,
    stage: str,
    report: Callable[[Progress], None],
) -> dict[str, _Result]:
    """Run jobs in two processes of one thread each.

    Args:
        jobs: By name; they and their results have to be picklable.
        stage: What the progress is called.
        report: Is told of each job that is done.

    Returns:
        The results, in the order of the jobs.
    """
    found: dict[str, _Result] = {}
    with ProcessPoolExecutor(
        _PROCESSES,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        running = {pool.submit(job): name for name, job in jobs.items()}
        for future in as_completed(running):
            found[running[future]] = future.result()
            report(Progress(stage=stage, done=len(found), total=len(jobs)))
    return {name: found[name] for name in jobs}
