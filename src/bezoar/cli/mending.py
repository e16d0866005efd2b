"""One repair, from the model and the data to the files."""

from __future__ import annotations

import inspect
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bezoar.attacks import attack_from_manifest, read_manifest
from bezoar.attacks.manifest import fingerprint as data_fingerprint
from bezoar.catalog import name_of
from bezoar.cli.repair_page import repair_report
from bezoar.cli.runs import versions
from bezoar.cli.sets import check_classes, fingerprint_of, image_size_for, read_whole
from bezoar.data import ImageData, ImageSource, Unreadable
from bezoar.errors import StorageError
from bezoar.metrics import evaluate, leakage, purity
from bezoar.models import fingerprint
from bezoar.report import write_page
from bezoar.results import Detection, Evaluation, Repair
from bezoar.runtime import Runtime
from bezoar.storage import read_object, save_repair, write_run


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What a model is measured on, and the repair does not see.

    Attributes:
        source: Clean, labelled test images.
        manifest: Of the attack whose trigger is shown, if there is one.
    """

    source: ImageSource
    manifest: Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mending:
    """All that a repair is asked to do.

    Attributes:
        model: The model.
        spec: Where it is from.
        method: How to repair it.
        source: The images that were scored.
        detection: What was found in them, for methods that ask for it.
        run: Folder that the detection came from.
        trial: What to measure the model on, if anything.
        image_size: What the user asked for.
        out: Folder for the result; new.
        seed: Seeds everything random.
        command: The command as it was typed.
    """

    model: nn.Module
    spec: str
    method: Any
    source: ImageSource
    detection: Detection | None
    run: Path | None
    trial: Trial | None
    image_size: int | None
    out: Path
    seed: int
    command: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Mended:
    """What came of a repair.

    Attributes:
        repair: The result.
        task: What was asked for.
        before: The model on the test images.
        after: The repaired model on them.
        truth: Purity and leakage, where a manifest tells the poison in the data.
        unreadable: Images that could not be read.
        remarks: What the reader should know besides.
    """

    repair: Repair
    task: Mending
    before: Evaluation | None
    after: Evaluation | None
    truth: dict[str, float]
    unreadable: tuple[Unreadable, ...]
    remarks: tuple[str, ...]


def mend(task: Mending, *, runtime: Runtime) -> Mended:
    """Repair a model, measure it, and write all that is known.

    Args:
        task: What to do.
        runtime: Where and how to run.

    Returns:
        What came of it.
    """
    start = time.perf_counter()
    size = image_size_for(task.source, asked=task.image_size, model=task.model)
    remarks = [check_classes(task.model, task.source), _other_model(task)]
    data, unreadable = read_whole(task.source, image_size=size, report=runtime.progress)
    measure = _measure(task.trial, size, runtime=runtime)
    given: dict[str, object] = {}
    if task.detection is not None:
        given["detection"] = task.detection
    if "evaluate" in inspect.signature(task.method.repair).parameters:
        given["evaluate"] = measure
    repair: Repair = task.method.repair(
        task.model,
        data=data,
        seed=task.seed,
        runtime=runtime,
        **given,
    )
    before = after = None
    if measure is not None:
        before, after = measure(task.model), measure(repair.model)
    mended = Mended(
        repair=repair,
        task=task,
        before=before,
        after=after,
        truth=_truth(task.trial, data, repair),
        unreadable=unreadable,
        remarks=tuple(text for text in remarks if text),
    )
    write_mended(mended, seconds=time.perf_counter() - start, runtime=runtime)
    return mended


class _Measure:
    def __init__(
        self, data: ImageData, manifest: Path | None, *, runtime: Runtime
    ) -> None:
        self.data, self.runtime = (
            data,
            Runtime(
                device=runtime.device,
                dtype=runtime.dtype,
                batch_size=runtime.batch_size,
            ),
        )
        self.trigger = None if manifest is None else attack_from_manifest(manifest)

    def __call__(self, network: nn.Module) -> Evaluation:
        return evaluate(network, self.data, attack=self.trigger, runtime=self.runtime)


def _measure(
    trial: Trial | None, size: tuple[int, int], *, runtime: Runtime
) -> _Measure | None:
    if trial is None:
        return None
    data, _ = read_whole(trial.source, image_size=size, report=runtime.progress)
    return _Measure(data, trial.manifest, runtime=runtime)


def _other_model(task: Mending) -> str:
    told = None if task.run is None else task.run / "run.json"
    if told is None or not told.exists():
        return ""
    facts = read_object(told).get("fingerprints")
    seen = facts.get("model") if isinstance(facts, dict) else None
    if seen in (None, fingerprint(task.model)):
        return ""
    return (
        "the detection looked at another model than this one; what it found may not "
        "be what this model learnt"
    )


def _truth(trial: Trial | None, data: ImageData, repair: Repair) -> dict[str, float]:
    # Known where the manifest is that of the very data which were repaired with.
    if trial is None or trial.manifest is None or repair.status == "nothing found":
        return {}
    manifest = read_manifest(trial.manifest)
    if manifest.fingerprint != data_fingerprint(data):
        return {}
    known = {row.id for row in manifest.poisoned}
    poisoned = torch.tensor([name in known for name in data.ids])
    return {
        "purity": purity(repair.chosen("suspicious", data.ids), poisoned),
        "leakage": leakage(repair.chosen("trusted", data.ids), poisoned),
    }


def write_mended(mended: Mended, *, seconds: float, runtime: Runtime) -> None:
    """Write what came of a repair to its folder.

    Args:
        mended: What came of it.
        seconds: How long it took.
        runtime: Its progress is used.

    Raises:
        StorageError: If the folder cannot be made.
    """
    task = mended.task
    try:
        task.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"expected a folder to write to at {str(task.out)!r}, got "
            f"{error.strerror or error}; choose another --out"
        ) from error
    fingerprints = {
        "data": fingerprint_of(task.source, report=runtime.progress),
        "model": fingerprint(task.model),
        "repaired_model": fingerprint(mended.repair.model),
    }
    extra: dict[str, object] = {
        "report": repair_report(mended, fingerprints=fingerprints, seconds=seconds),
        "model": task.spec,
        "unreadable": [{"id": u.id, "reason": u.reason} for u in mended.unreadable],
        "remarks": mended.remarks,
        "evaluation": None,
        "truth": mended.truth,
    }
    if mended.before is not None and mended.after is not None:
        extra["evaluation"] = {
            "before": asdict(mended.before),
            "after": asdict(mended.after),
        }
    save_repair(mended.repair, task.out, extra=extra)
    write_page(task.out)
    write_run(
        task.out,
        command=task.command,
        settings={"method": name_of(task.method), **asdict(task.method)},
        seed=task.seed,
        versions=versions(),
        fingerprints=fingerprints,
        timings={"total": round(seconds, 3)},
        status="done",
    )
