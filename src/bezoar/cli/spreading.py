"""What the verbs that go through a set block by block ask: who does the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from bezoar.cli.options import Count, Running
from bezoar.cli.progress import Report
from bezoar.engine import RayEngine
from bezoar.errors import InputError
from bezoar.runtime import Runtime

Share = Annotated[float | None, arg(metavar="SHARE", help_behavior_hint="")]
Address = Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Spreading(Running):
    """On what to run, how exactly, and on how many machines.

    Attributes:
        device: "auto" takes a GPU if there is one; else "cpu", "cuda", "cuda:1", ...
        debug: Show the traceback of an error.
        dtype: Arithmetic of the networks; "auto" takes bfloat16 where the device has
            it.
        engine: Who works on the blocks: this process, or workers of Ray on all cores,
            GPUs and machines of a cluster. The files are the same, and each goes on
            with what the other began.
        address: Of a running Ray cluster, such as auto or 10.0.0.1:6379; one is started
            on this machine if it is not given.
        workers: How many workers of Ray; as many as there is room for if it is not
            given.
        gpus_per_worker: GPUs of a worker of Ray, such as 0.5 for two on each; one if it
            is not given and the device is a GPU.
    """

    engine: Literal["local", "ray"] = "local"
    address: Address = None
    workers: Count = None
    gpus_per_worker: Share = None

    def runtime(
        self,
        progress: Report,
        *,
        batch_size: int = 64,
        block_size: int = 1024,
        work_dir: Path | None = None,
    ) -> Runtime:
        """Return where and how to run.

        Args:
            progress: Told after every batch, epoch or block.
            batch_size: Images per forward pass.
            block_size: Images per block of a streamed run.
            work_dir: Folder for what a killed run needs to go on.

        Returns:
            The runtime.

        Raises:
            InputError: If options of Ray are given without it.
        """
        runtime = super().runtime(
            progress, batch_size=batch_size, block_size=block_size, work_dir=work_dir
        )
        given = (self.address, self.workers, self.gpus_per_worker)
        if self.engine == "local":
            if given != (None, None, None):
                raise InputError(
                    "expected --engine ray beside --address, --workers or "
                    "--gpus-per-worker, got --engine local; give it, or leave them out"
                )
            return runtime
        engine = RayEngine(
            address=self.address,
            num_workers=self.workers,
            gpus_per_worker=self.gpus_per_worker,
        )
        return replace(runtime, engine=engine)


SPREADING = Spreading()
