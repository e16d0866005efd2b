"""One repair of an image-text model, from the model and the pairs to the files."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from bezoar.attacks import attack_from_manifest
from bezoar.cli.mending import Mended, Mending, Trial, write_mended
from bezoar.cli.pair_options import TEMPLATE
from bezoar.cli.progress import Report
from bezoar.cli.sets import check_room
from bezoar.data import ImageData, PairData, PairSource, Unreadable, join_pairs
from bezoar.errors import EmptyError, InputError
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder
from bezoar.results import Evaluation, Repair
from bezoar.runtime import Progress, Runtime

_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMending:
    """What a repair of an image-text model is asked to do besides the usual.

    Attributes:
        task: The usual; its source is that of the pairs without the captions.
        pairs: The pairs.
        reference: A clean model of the same kind, for methods that ask for one.
        template: The prompt of a class, with {} in place of its name.
    """

    task: Mending
    pairs: PairSource
    reference: DualEncoder | None
    template: str


def mend_pairs(asked: PairMending, *, runtime: Runtime) -> Mended:
    """Repair an image-text model, measure it, and write all that is known.

    Args:
        asked: What to do.
        runtime: Where and how to run.

    Returns:
        What came of it.

    Raises:
        InputError: If the template has no place for a class.
    """
    start, task = time.perf_counter(), asked.task
    if asked.template.count("{}") != 1:
        raise InputError(
            f"expected a --template with one {{}} for the class, got "
            f"{asked.template!r}; give one such as {TEMPLATE!r}"
        )
    side = task.image_size or int(getattr(task.model, "resolution", 224))
    data, unreadable = read_pairs(asked.pairs, (side, side), report=runtime.progress)
    measure = _measure(task.trial, side, template=asked.template, runtime=runtime)
    takes = inspect.signature(task.method.repair).parameters
    given: dict[str, object] = {
        "reference": asked.reference,
        "detection": task.detection,
        "evaluate": measure,
    }
    repair: Repair = task.method.repair(
        task.model,
        data=data,
        seed=task.seed,
        runtime=runtime,
        **{name: value for name, value in given.items() if name in takes},
    )
    before = after = None
    if measure is not None:
        before, after = measure(task.model), measure(repair.model)
    mended = Mended(
        repair=repair,
        task=task,
        before=before,
        after=after,
        truth={},
        unreadable=unreadable,
        remarks=(),
    )
    write_mended(mended, seconds=time.perf_counter() - start, runtime=runtime)
    return mended


class _Measure:
    def __init__(
        self,
        data: ImageData,
        manifest: Path | None,
        *,
        prompts: Sequence[Sequence[str]],
        runtime: Runtime,
    ) -> None:
        self.data, self.prompts = data, prompts
        self.runtime = replace(runtime, progress=Runtime().progress)
        self.trigger = None if manifest is None else attack_from_manifest(manifest)

    def __call__(self, network: nn.Module) -> Evaluation:
        assert isinstance(network, DualEncoder)
        classifier = zero_shot_classifier(network, self.prompts)
        return evaluate(
            classifier, self.data, attack=self.trigger, runtime=self.runtime
        )


def _measure(
    trial: Trial | None, side: int, *, template: str, runtime: Runtime
) -> _Measure | None:
    if trial is None:
        return None
    data, _ = trial.source.read(image_size=(side, side))
    prompts = [[template.format(name)] for name in data.class_names]
    return _Measure(data, trial.manifest, prompts=prompts, runtime=runtime)


def read_pairs(
    source: PairSource, image_size: tuple[int, int], *, report: Report
) -> tuple[PairData, tuple[Unreadable, ...]]:
    """Read a set of pairs into memory.

    Args:
        source: The set.
        image_size: Height and width to resize to.
        report: Told after every block.

    Returns:
        The pairs that could be read, and the others with their reasons.

    Raises:
        EmptyError: If no pair can be read; an ``InputError`` follows a set that would
            take most of the memory.
    """
    check_room(source.num_pairs or 0, image_size)
    parts: list[PairData] = []
    unreadable: list[Unreadable] = []
    done = 0
    for block in source.blocks(_BLOCK, image_size=image_size):
        parts += [] if block.data is None else [block.data]
        unreadable += block.unreadable
        done += len(block.unreadable) + (0 if block.data is None else len(block.data))
        report(Progress(stage="read", done=done, total=source.num_pairs or 0))
    if not parts:
        first = unreadable[0] if unreadable else None
        reason = f" ({first.id!r}: {first.reason})" if first else ""
        raise EmptyError(
            f"expected images with captions in {source.spec!r}, found none that can be "
            f"read{reason}; give another set"
        )
    return join_pairs(parts), tuple(unreadable)
