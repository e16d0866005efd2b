"""The first half of a guard: what is in the set, and what is wrong with it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from torch import nn

from bezoar.data import Unreadable
from bezoar.engine import (
    Detector,
    detect_with,
    masked_worst,
    uses_model,
)
from bezoar.engine.dispatch import read_all
from bezoar.errors import InputError, StorageError
from bezoar.guarding.diagnosing import diagnosed
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.pairing import search
from bezoar.guarding.screening import screened
from bezoar.guarding.task import Task
from bezoar.guarding.verify import (
    Verified,
    load_verified,
    repeated_captions,
    save_verified,
    verify,
)
from bezoar.models import backbone_of, fingerprint, load_model, save_model
from bezoar.results import Detection, Diagnosis, Repair, Screening
from bezoar.storage import (
    load_detection,
    read_object,
    save_detection,
)
from bezoar.train import train_classifier

MODEL = "model.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What is in the set, and what is wrong with it.

    Attributes:
        verified: What reading every file came to; None where that was not done.
        screening: What the look at the whole set came to.
        model: The classifier or encoder that the detection looked at.
        model_text: Where it is from.
        found: What the detection found.
        unreadable: Files that are no images.
        repair: Of an image-text model, for what is found and what is forgotten come
            of one search.
        diagnosis: What the search for a trigger says about an encoder.
        key: Digest of all that these depend on.
    """

    verified: Verified | None
    screening: Screening | None
    model: nn.Module | None
    model_text: str
    found: Detection | None
    unreadable: tuple[Unreadable, ...]
    key: str
    repair: Repair | None = None
    diagnosis: Diagnosis | None = None


def find(task: Task, ledger: Ledger) -> Findings:
    """Read, screen and score a set.

    Args:
        task: The guard.
        ledger: Does the steps.

    Returns:
        What was found.
    """
    verified = ledger.do(
        "verify",
        key=task.key(),
        make=lambda: _verify(task),
        load=lambda: load_verified(task.folder),
    )
    if task.clip is not None:
        return _found_in_pairs(task, ledger, verified)
    screening = screened(task, ledger)
    model = task.model if task.model is not None else _learnt(task, ledger)
    if task.model is not None:
        ledger.pass_over("learn", "skipped", "not needed: a model was given")
    # Of one of ours the detector sees the part that gives the vectors.
    seen = backbone_of(model) if model is not None and task.is_encoder else model
    scored, key = _scored(task, ledger, seen)
    diagnosis = diagnosed(task, ledger, model)
    found, unreadable = scored or (None, ())
    if verified is not None:
        unreadable = verified.unreadable
    return Findings(
        verified=verified,
        screening=screening,
        model=model,
        model_text=task.model_text or ("" if model is None else _trained_text(task)),
        found=found,
        unreadable=unreadable,
        key=key,
        diagnosis=diagnosis,
    )


def _found_in_pairs(task: Task, ledger: Ledger, verified: Verified | None) -> Findings:
    ledger.pass_over("screen", "cannot run", "captions take the place of labels")
    ledger.pass_over("learn", "skipped", "not needed: a model was given")
    done, key = search(task, ledger)
    diagnosed(task, ledger, None)
    repair, unreadable = done or (None, ())
    return Findings(
        verified=verified,
        screening=None,
        model=None,
        model_text=task.model_text,
        found=None if repair is None else repair.detection,
        unreadable=unreadable if verified is None else verified.unreadable,
        key=key,
        repair=repair,
    )


def check_decisions(task: Task, findings: Findings) -> None:
    """Check that what a person decided is on images of this set.

    Args:
        task: The guard.
        findings: Names the images, where they were scored.

    Raises:
        InputError: If one is not among them.
    """
    if findings.found is None:
        return
    known = {*findings.found.ids, *(u.id for u in findings.unreadable)}
    if unknown := [id_ for id_ in task.decisions.by_id if id_ not in known]:
        raise InputError(
            f"expected decisions on images of this set, got {unknown[0]!r} and "
            f"{len(unknown) - 1:,} more that are not in it; save them on the page of "
            "this run"
        )


def _verify(task: Task) -> tuple[Verified, str]:
    found = verify(task.source, report=task.runtime.progress)
    if task.pairs is not None:
        found = replace(found, captions=repeated_captions(task.pairs))
    save_verified(found, task.folder)
    return found, found.summary


def _learnt(task: Task, ledger: Ledger) -> nn.Module | None:
    reason = cannot_train(task.source.class_names)
    if reason:
        ledger.pass_over("learn", "cannot run", reason)
        return None
    if not uses_model(task.detector):
        ledger.pass_over("learn", "skipped", "not needed: the detector trains its own")
        return None
    path = task.folder / MODEL

    def make() -> tuple[nn.Module, str]:
        data, _ = read_all(
            task.source, image_size=task.image_size, runtime=task.runtime
        )
        trained = train_classifier(
            task.architecture.build(task.seed),
            data=data,
            settings=task.tools.training,
            seed=task.seed,
            runtime=task.working("learn"),
        )
        save_model(trained, path, architecture=task.architecture)
        return load_model(str(path)), _trained_text(task)

    return ledger.do(
        "learn",
        key=task.key(
            architecture=asdict(task.architecture), training=asdict(task.tools.training)
        ),
        make=make,
        load=lambda: load_stored(path),
    )


def load_stored(path: Path) -> nn.Module:
    """Load a model that an earlier run wrote.

    Args:
        path: Its weights.

    Returns:
        The model.

    Raises:
        StorageError: If it is not there.
    """
    if not (path.exists() and path.with_suffix(".json").exists()):
        raise StorageError(
            f"expected a model in {str(path)!r}, got none; train it again"
        )
    return load_model(str(path))


def cannot_train(class_names: Sequence[str]) -> str:
    """Return why no classifier can be trained on a set.

    Args:
        class_names: Of the set.

    Returns:
        The reason; empty if one can.
    """
    if not class_names:
        return "there are no labels to train a classifier on"
    if len(class_names) == 1:
        return f"there is one class ({class_names[0]!r}), and it takes two to train"
    return ""


def _trained_text(task: Task) -> str:
    kind, epochs = task.architecture, task.tools.training.epochs
    return f"{kind.name} of width {kind.width}, trained on the set for {epochs} epochs"


_Scored = tuple[Detection, tuple[Unreadable, ...]]


def _scored(
    task: Task, ledger: Ledger, model: nn.Module | None
) -> tuple[_Scored | None, str]:
    detector = task.detector
    key = task.key(
        detector=type(detector).__name__,
        settings=asdict(detector),
        model="" if model is None else fingerprint(model),
    )
    if uses_model(detector) and model is None:
        ledger.pass_over(
            "detect",
            "cannot run",
            f"{type(detector).__name__} looks at a model that was trained on the "
            "images, and there is none; give --model or --encoder",
        )
        return None, key
    scored = ledger.do(
        "detect",
        key=key,
        make=lambda: _detect(task, detector, model, key=key),
        load=lambda: _load_scored(task.folder),
    )
    return scored, key


def _detect(
    task: Task, detector: Detector, model: nn.Module | None, *, key: str
) -> tuple[_Scored, str]:
    runtime = task.working(f"detect-{key[:8]}")
    found, unreadable = detect_with(
        task.source,
        method=detector,
        model=model,
        image_size=task.image_size,
        seed=task.seed,
        runtime=runtime,
    )
    found = masked_worst(
        found,
        task.source,
        method=detector,
        model=model,
        image_size=task.image_size,
        seed=task.seed,
        runtime=task.runtime,
    )
    bad = [{"id": u.id, "reason": u.reason} for u in unreadable]
    save_detection(found, task.folder, unreadable=unreadable, extra={"unreadable": bad})
    assert runtime.work_dir is not None
    shutil.rmtree(runtime.work_dir, ignore_errors=True)
    return (found, unreadable), found.verdict.summary


def _load_scored(folder: Path) -> _Scored:
    found = load_detection(folder)
    rows = cast(
        "list[dict[str, str]]", read_object(folder / "report.json")["unreadable"]
    )
    return found, tuple(Unreadable(**row) for row in rows)
