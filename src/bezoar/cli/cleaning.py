"""One run of a purifier over a set, from the images to the set that is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor, nn

from bezoar.catalog import name_of
from bezoar.cli.purification_page import purification_report
from bezoar.cli.purification_text import Cleaned
from bezoar.cli.runs import Run, check_free, digest, write_set
from bezoar.cli.sets import fingerprint_of, read_whole
from bezoar.data import ImageSource, Unreadable
from bezoar.engine import RANKING, BlockPurifier, Purifier, purify_source
from bezoar.errors import InputError
from bezoar.models import fingerprint
from bezoar.report import write_page
from bezoar.results import PurificationReport
from bezoar.runtime import Runtime
from bezoar.storage import save_purification
from bezoar.train import forget_training

Images = Callable[[str], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to purify, and how.

    Attributes:
        source: The images.
        method: A purifier.
        image_size: Height and width that images are resized to.
        out: Where the purified set goes.
        seed: Seeds everything random.
        command: The command as it was typed.
        networks: Trained networks that the method takes, by keyword.
    """

    source: ImageSource
    method: Purifier
    image_size: tuple[int, int]
    out: Path
    seed: int
    command: str
    networks: Mapping[str, nn.Module] = field(default_factory=dict)


def clean(task: Task, *, runtime: Runtime) -> Cleaned:
    """Purify a set, write it in its own format, and all that is known about it.

    Args:
        task: What to purify, and how.
        runtime: Where and how to run; its ``work_dir`` is the folder of the run.

    Returns:
        What came of it.
    """
    folder = runtime.work_dir
    assert folder is not None  # the command gives one
    settings = {"method": name_of(task.method), **asdict(task.method)}
    settings |= {name: fingerprint(net) for name, net in task.networks.items()}
    data_key = fingerprint_of(task.source, report=runtime.progress)
    run = Run(
        folder=folder,
        command=task.command,
        settings=settings,
        seed=task.seed,
        fingerprints={
            "data": data_key,
            "run": digest(
                settings=settings,
                seed=task.seed,
                image_size=task.image_size,
                data=data_key,
            ),
        },
    )
    if not run.take_over():
        check_free(task.out, option="--out")
    with run.going_on():
        with run.stage("purify"):
            report, unreadable, images = _purified(task, runtime=runtime)
        with run.stage("write"):
            bad = {u.id for u in unreadable}
            page = purification_report(
                report,
                source=task.source,
                images=images,
                image_size=task.image_size,
                unreadable=unreadable,
                run=run,
            )
            extra = {"report": page}
            save_purification(report, folder, unreadable=unreadable, extra=extra)
            write_page(folder)
            num_written = write_set(
                task.source, task.out, keep=lambda id_: id_ not in bad, images=images
            )
    # The set and the table hold what these held.
    for name in ("blocks", "images", RANKING):
        shutil.rmtree(folder / name, ignore_errors=True)
    forget_training(folder)
    return Cleaned(
        report=report,
        unreadable=unreadable,
        folder=folder,
        out=task.out,
        num_written=num_written,
        image_size=task.image_size,
        seconds=run.timings,
    )


def _purified(
    task: Task, *, runtime: Runtime
) -> tuple[PurificationReport, tuple[Unreadable, ...], Images]:
    if isinstance(task.method, BlockPurifier):
        done = purify_source(
            task.source,
            method=task.method,
            image_size=task.image_size,
            networks=task.networks,
            seed=task.seed,
            runtime=runtime,
        )
        return done.report, done.unreadable, done.images
    if runtime.engine is not None and not getattr(task.method, "uses_engine", False):
        raise InputError(
            f"expected no --engine ray for {name_of(task.method)}, which looks at all "
            "images at once, got it; leave it out"
        )
    data, unreadable = read_whole(
        task.source, image_size=task.image_size, report=runtime.progress
    )
    whole = task.method.purify(data, seed=task.seed, runtime=runtime, **task.networks)
    place = {id_: i for i, id_ in enumerate(whole.data.ids)}

    def image(id_: str) -> Tensor | None:
        return whole.data.images[place[id_]] if id_ in place else None

    return whole.report, unreadable, image
