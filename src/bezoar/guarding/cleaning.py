"""The second half of a guard, first part: what becomes of the images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from bezoar.data import ImageSource, open_pairs, open_source, write_source
from bezoar.engine import BlockPurifier, purify_source
from bezoar.engine.dispatch import read_all
from bezoar.engine.relay import digest
from bezoar.errors import StorageError
from bezoar.guarding.decide import Plan, decide, save_plan
from bezoar.guarding.finding import Findings
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.task import Task
from bezoar.results import PurificationReport
from bezoar.storage import load_purification_report, save_purification

Images = Callable[[str], Tensor | None]
PURIFIED = "purified"


class Purified:
    """What a purifier made of the set; the images are made when they are asked for.

    Args:
        report: What was done to each image.
        make: Makes the images again, or finds them where they are.
    """

    def __init__(self, report: PurificationReport, make: Callable[[], Images]) -> None:
        self.report = report
        self._make = make

    @cached_property
    def images(self) -> Images:
        """The purified images, by id."""
        return self._make()


@dataclass(frozen=True, kw_only=True, eq=False)
class Cleaned:
    """What became of the set.

    Attributes:
        plan: What was decided.
        purified: What the purifier made of it; None where nothing was purified.
        clean: Where the clean set lies; None where the one given is the clean one, or
            none was written.
        num_written: Images in it.
        key: Digest of all that it depends on.
    """

    plan: Plan
    purified: Purified | None
    clean: Path | None
    num_written: int
    key: str


def clean(task: Task, ledger: Ledger, findings: Findings) -> Cleaned:
    """Decide about each image, and write the set that comes of it.

    Args:
        task: The guard.
        ledger: Does the steps.
        findings: What is wrong with the set.

    Returns:
        What became of it.
    """
    plan = ledger.do(
        "decide",
        key=task.key(rule=asdict(task.rule), findings=findings.key),
        make=lambda: _decide(task, findings),
    )
    if plan is None:
        for name in ("purify", "write"):
            ledger.pass_over(name, "cannot run", "nothing was decided")
        return Cleaned(
            plan=Plan(actions={}), purified=None, clean=None, num_written=0, key=""
        )
    purified = _purified(task, ledger, plan)
    key = task.key(
        actions=sorted(plan.actions.items()),
        purify_all=plan.purify_all,
        purifier=_purifier_key(task) if purified else "",
    )
    written = _written(task, ledger, plan, purified, key=key)
    return Cleaned(
        plan=plan,
        purified=purified,
        clean=task.clean if written else None,
        num_written=written or 0,
        key=key,
    )


def reopened(task: Task) -> ImageSource:
    """Open the clean set in the way the one given was opened.

    Args:
        task: The guard.

    Returns:
        The clean set.
    """
    source = task.source
    return open_source(
        task.clean,
        image_column=source.image_column,
        label_column=source.label_column,
        max_pixels=source.max_pixels,
    )


def _decide(task: Task, findings: Findings) -> tuple[Plan, str]:
    plan = decide(
        task.rule,
        verified=findings.verified,
        screening=findings.screening,
        found=findings.found,
        unreadable=findings.unreadable,
        decisions=task.decisions.by_id,
    )
    save_plan(plan, task.folder)
    return plan, plan.summary


def _purifier_key(task: Task) -> str:
    purifier = task.tools.purifier
    return digest(purifier=type(purifier).__name__, settings=asdict(purifier))


def _purified(task: Task, ledger: Ledger, plan: Plan) -> Purified | None:
    if not plan.purifies:
        ledger.pass_over("purify", "skipped", "not needed: nothing is to be purified")
        return None
    folder = task.folder / PURIFIED

    def make() -> tuple[Purified, str]:
        report, images = _run(task)
        save_purification(report, folder)
        return Purified(report, lambda: images), report.summary

    return ledger.do(
        "purify",
        key=task.key(purifier=_purifier_key(task)),
        make=make,
        load=lambda: Purified(load_purification_report(folder), lambda: _run(task)[1]),
    )


def _run(task: Task) -> tuple[PurificationReport, Images]:
    purifier = task.tools.purifier
    runtime = task.working(f"purify-{_purifier_key(task)[:8]}")
    size = task.source.probe_size()
    if isinstance(purifier, BlockPurifier):
        done = purify_source(
            task.source,
            method=purifier,
            image_size=size,
            seed=task.seed,
            runtime=runtime,
        )
        return done.report, done.images
    data, _ = read_all(task.source, image_size=size, runtime=task.runtime)
    whole = purifier.purify(data, seed=task.seed, runtime=runtime)
    place = {id_: i for i, id_ in enumerate(whole.data.ids)}

    def image(id_: str) -> Tensor | None:
        return whole.data.images[place[id_]] if id_ in place else None

    return whole.report, image


def _written(
    task: Task,
    ledger: Ledger,
    plan: Plan,
    purified: Purified | None,
    *,
    key: str,
) -> int | None:
    if not plan.changes:
        _remove(task)
        reason = "not needed: the set is kept as it is"
        ledger.pass_over("write", "skipped", reason)
        return None
    if plan.purifies and purified is None and not plan.dropped:
        reason = "the images were not purified, and none is dropped"
        ledger.pass_over("write", "cannot run", reason)
        return None

    def make() -> tuple[int, str]:
        _remove(task)

        def image(id_: str) -> Tensor | None:
            if purified is None or not plan.is_purified(id_):
                return None
            return purified.images(id_)

        count = write_source(task.source, task.clean, keep=plan.keeps, images=image)
        return count, f"{count:,} images, as {task.source.format.replace('_', ' ')}"

    return ledger.do("write", key=key, make=make, load=lambda: _count(task))


def _count(task: Task) -> int:
    if not task.clean.exists():
        raise StorageError(
            f"expected the clean set at {str(task.clean)!r}, got nothing; it is "
            "written again"
        )
    source = open_pairs(task.clean).images if task.pairs else reopened(task)
    return source.num_images or sum(1 for _ in source.records())


def _remove(task: Task) -> None:
    # Our own, of an earlier decision or a killed run: the folder holds a guard.
    shutil.rmtree(task.clean, ignore_errors=True)
    for rest in task.folder.glob(f".{task.clean.name}.*"):
        shutil.rmtree(rest, ignore_errors=True)
