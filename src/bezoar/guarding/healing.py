"""The second half of a guard, second part: a model without what was found."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from bezoar.engine import collect
from bezoar.engine.dispatch import read_all
from bezoar.engine.relay import digest
from bezoar.guarding.cleaning import Cleaned, reopened
from bezoar.guarding.finding import Findings, cannot_train, load_stored
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.measuring import measured
from bezoar.guarding.task import Task
from bezoar.metrics import predict
from bezoar.models import fingerprint, load_model, save_model
from bezoar.results import Evaluation, Repair
from bezoar.storage import load_repair, read_object, save_repair, write_json
from bezoar.train import train_classifier

TRAINED, REPAIRED = "trained", "repaired"
_MODEL = "model.safetensors"
_LOOKED_AT = 500  # dropped images that a new network is asked about


@dataclass(frozen=True, kw_only=True, eq=False)
class Healed:
    """A model without what was found.

    Attributes:
        model: The model to use; None where there is none that is new.
        path: Where it lies.
        relearnt: Share of the dropped images whose label the network that was trained
            anew gives them, without having seen them; None where none was trained or
            dropped.
        repair: What the repair came to; None where nothing was repaired.
        before: The model that the detection looked at, on the test images.
        after: The model to use, on them.
    """

    model: nn.Module | None
    path: Path | None
    relearnt: float | None
    repair: Repair | None
    before: Evaluation | None
    after: Evaluation | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Anew:
    model: nn.Module
    relearnt: float | None


def heal(task: Task, ledger: Ledger, findings: Findings, cleaned: Cleaned) -> Healed:
    """Train or repair a model, and measure it.

    Args:
        task: The guard.
        ledger: Does the steps.
        findings: What is wrong with the set.
        cleaned: What became of it.

    Returns:
        The model and how it does.
    """
    if task.clip is not None:
        return _of_pairs(ledger, findings, task.folder / REPAIRED)
    anew = _trained(task, ledger, findings, cleaned)
    repair = _repaired(task, ledger, findings, anew)
    model, path = None, None
    if anew is not None:
        model, path = anew.model, task.folder / TRAINED
    if repair is not None and repair.changed:
        model, path = repair.model, task.folder / REPAIRED
    before, after = measured(task, ledger, findings.model, model)
    return Healed(
        model=model,
        path=path,
        relearnt=None if anew is None else anew.relearnt,
        repair=repair,
        before=before,
        after=after,
    )


def _of_pairs(ledger: Ledger, findings: Findings, path: Path) -> Healed:
    ledger.pass_over("train", "skipped", "not needed: the given model is repaired")
    repair = findings.repair
    if repair is None:
        ledger.pass_over("repair", "cannot run", "the pairs were not searched")
    else:
        ledger.pass_over("repair", "skipped", f"done while searching: {repair.summary}")
    ledger.pass_over("measure", "cannot run", "only classifiers are measured here")
    changed = repair is not None and repair.changed
    return Healed(
        model=None if repair is None else repair.model,
        path=path if changed else None,
        relearnt=None,
        repair=repair,
        before=None,
        after=None,
    )


def _trained(
    task: Task, ledger: Ledger, findings: Findings, cleaned: Cleaned
) -> _Anew | None:
    reason = cannot_train(task.source.class_names)
    if task.model is not None:
        ledger.pass_over("train", "skipped", "not needed: the given model is repaired")
    elif reason:
        ledger.pass_over("train", "cannot run", reason)
    elif not cleaned.plan.changes:
        ledger.pass_over("train", "skipped", "not needed: the set is kept as it is")
    elif cleaned.clean is None:
        ledger.pass_over("train", "cannot run", "no clean set was written")
    else:
        folder = task.folder / TRAINED
        return ledger.do(
            "train",
            key=digest(
                clean=cleaned.key,
                architecture=asdict(task.architecture),
                training=asdict(task.tools.final_training),
            ),
            make=lambda: _train(task, findings, cleaned, folder),
            load=lambda: _load_trained(folder),
        )
    return None


def _train(
    task: Task, findings: Findings, cleaned: Cleaned, folder: Path
) -> tuple[_Anew, str]:
    data, _ = read_all(reopened(task), image_size=task.image_size, runtime=task.runtime)
    network = train_classifier(
        task.architecture.build(task.seed),
        data=data,
        settings=task.tools.final_training,
        seed=task.seed,
        runtime=task.working("train"),
    )
    save_model(network, folder / _MODEL, architecture=task.architecture)
    model = load_model(str(folder / _MODEL))
    relearnt = _relearnt(task, findings, cleaned, model)
    write_json(folder / "training.json", {"relearnt": relearnt})
    epochs = task.tools.final_training.epochs
    words = f"trained on {len(data):,} images for {epochs} epochs"
    if relearnt is not None:
        words += f"; it gives {relearnt:.0%} of the dropped images their label"
    return _Anew(model=model, relearnt=relearnt), words


def _relearnt(
    task: Task, findings: Findings, cleaned: Cleaned, model: nn.Module
) -> float | None:
    # A clean network calls most poisoned images what they show, not their label.
    found = findings.found
    if found is None:
        return None
    flagged = found.flagged.nonzero().flatten().tolist()
    ids = [found.ids[i] for i in flagged if not cleaned.plan.keeps(found.ids[i])]
    if not ids:
        return None
    images = collect(task.source, ids[:_LOOKED_AT], image_size=task.image_size)
    given = predict(model, images, runtime=task.runtime)
    share: float = (given == images.labels).float().mean().item()
    return share


def _load_trained(folder: Path) -> _Anew:
    model = load_stored(folder / _MODEL)
    told = read_object(folder / "training.json").get("relearnt")
    return _Anew(model=model, relearnt=cast("float | None", told))


def _repaired(
    task: Task, ledger: Ledger, findings: Findings, anew: _Anew | None
) -> Repair | None:
    found = findings.found
    model = _to_repair(task, ledger, findings, anew)
    if model is None:
        return None
    folder, method = task.folder / REPAIRED, task.tools.repair
    given = {"detection": found} if _needs_detection(method) else {}

    def make() -> tuple[Repair, str]:
        data, _ = read_all(
            task.source, image_size=task.image_size, runtime=task.runtime
        )
        repair: Repair = method.repair(
            model, data=data, seed=task.seed, runtime=task.working("repair"), **given
        )
        save_repair(repair, folder)
        return repair, repair.summary

    return ledger.do(
        "repair",
        key=digest(
            found=findings.key,
            model=fingerprint(model),
            method=type(method).__name__,
            settings=asdict(method),
        ),
        make=make,
        load=lambda: load_repair(folder, model=model),
    )


def _needs_detection(method: Any) -> bool:
    return "detection" in inspect.signature(type(method).repair).parameters


def _to_repair(
    task: Task, ledger: Ledger, findings: Findings, anew: _Anew | None
) -> nn.Module | None:
    # Which model is to forget what was found; a reason in the ledger where none is.
    found, reason, status = findings.found, "", "skipped"
    model = findings.model
    if task.is_encoder:
        if not _needs_detection(task.tools.repair):
            return model
        reason = "not asked for: name a repair of encoders, such as mimic"
        if findings.diagnosis is not None and findings.diagnosis.found:
            reason += "; the diagnosis speaks for it"
    elif found is None:
        reason, status = (
            "nothing was scored, so there is nothing to forget",
            "cannot run",
        )
    elif not found.flagged.any():
        reason = "not needed: nothing was flagged"
    elif not task.source.class_names:
        reason = "repairs after a detection work on classifiers, and on labelled images"
        status = "cannot run"
    elif anew is not None:
        model = anew.model
        if (anew.relearnt or 0.0) < task.rule.relearnt_rate:
            reason = "not needed: a new model was trained on the clean set"
    if reason:
        ledger.pass_over("repair", status, reason)  # type: ignore[arg-type]
        return None
    return model
