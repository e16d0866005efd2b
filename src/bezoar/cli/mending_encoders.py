"""One repair of an encoder, from the model and clean images to the files."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import torch

from bezoar.catalog import ENCODER_REPAIRS
from bezoar.cli.mending import Mended, Mending, write_mended
from bezoar.cli.sets import image_size_for, read_whole
from bezoar.data import ImageData
from bezoar.models import (
    backbone_of,
    encoder_format,
    is_encoder,
    unit_vectors,
)
from bezoar.repair import LipschitzPruning
from bezoar.results import Repair
from bezoar.runtime import Runtime, generator
from bezoar.storage import RunLock

_HOLDOUT_RATE = 0.1
_LEAST = 128  # images, for a tenth of fewer tells little and is missed in training
_LEFT = ("information.json", "distil.training.safetensors")


def repairs_encoder(method: object, spec: str) -> bool:
    """Whether a repair is to be that of an encoder.

    Args:
        method: The repair.
        spec: The model; Lipschitz pruning takes classifiers as well, and goes by it.

    Returns:
        True for the repairs of encoders.
    """
    if isinstance(method, LipschitzPruning):
        return is_encoder(spec)
    return type(method) in ENCODER_REPAIRS.values()


def mend_encoder(task: Mending, *, runtime: Runtime) -> Mended:
    """Repair an encoder, compare its vectors, and write all that is known.

    Labels are not looked at. A tenth of the images is kept out to compare the vectors
    of both encoders on, unless there is a test set or the method keeps images out
    itself. A killed run goes on from a folder beside the result.

    Args:
        task: What to do; its model is an encoder.
        runtime: Where and how to run.

    Returns:
        What came of it; ``held_out_cosine`` is in the figures of the repair.
    """
    start = time.perf_counter()
    size = image_size_for(
        task.source, asked=task.image_size, model=backbone_of(task.model)
    )
    data, unreadable = read_whole(task.source, image_size=size, report=runtime.progress)
    learnt, watched, remarks = data, None, []
    if task.trial is not None:
        watched, _ = read_whole(
            task.trial.source, image_size=size, report=runtime.progress
        )
    elif not getattr(task.method, "holdout_rate", 0.0) and len(data) >= _LEAST:
        learnt, watched = _split(data, seed=task.seed)
    work_dir = task.out.with_name(f".{task.out.name}.repair")
    with RunLock(work_dir) as lock:
        repair: Repair = task.method.repair(
            task.model,
            data=learnt,
            seed=task.seed,
            runtime=replace(runtime, work_dir=work_dir),
        )
        repair = _compared(repair, task, watched, learnt, runtime=runtime)
        if watched is None and "held_out_cosine" not in repair.figures:
            remarks.append(
                "the cosine is that on the images it learnt from; give others as "
                f"--test, or {_LEAST} or more as --data"
            )
        if encoder_format(repair.model) is None:
            remarks.append(
                "no format of its own is known for this kind of encoder: "
                "model.safetensors holds the weights, to be put into its code"
            )
        mended = Mended(
            repair=repair,
            task=task,
            before=None,
            after=None,
            truth={},
            unreadable=unreadable,
            remarks=tuple(remarks),
        )
        write_mended(mended, seconds=time.perf_counter() - start, runtime=runtime)
        for name in (*_LEFT, lock.path.name):
            (work_dir / name).unlink(missing_ok=True)
    with suppress(OSError):  # it is empty, unless another run has begun
        work_dir.rmdir()
    return mended


def _split(data: ImageData, *, seed: int) -> tuple[ImageData, ImageData]:
    order = torch.randperm(len(data), generator=generator(seed, "repair held out"))
    count = round(_HOLDOUT_RATE * len(data))
    return data.take(order[count:].sort().values), data.take(order[:count])


def _compared(
    repair: Repair,
    task: Mending,
    watched: ImageData | None,
    learnt: ImageData,
    *,
    runtime: Runtime,
) -> Repair:
    if watched is None and "held_out_cosine" in repair.figures:
        return repair
    shown = (learnt if watched is None else watched).images
    exact = replace(runtime, dtype=torch.float32)
    old = unit_vectors(task.model, shown, runtime=exact)
    new = unit_vectors(repair.model, shown, runtime=exact)
    cosine = float((old * new).sum(1).mean())
    if watched is None:
        return replace(repair, figures={**repair.figures, "cosine": cosine})
    return replace(
        repair,
        figures={**repair.figures, "held_out_cosine": cosine},
        image_ids={**repair.image_ids, "held out": watched.ids},
    )
