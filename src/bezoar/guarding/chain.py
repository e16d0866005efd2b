"""From data that nobody vouches for to a verdict, clean data, and a clean model.

This is the row above the methods and the catalog, and below the commands: it joins
the verbs, as ``bezoar guard`` and ``bezoar.guard`` do, and knows each by its interface
alone. Nothing in it knows of a command line.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from torch import nn

from bezoar.guarding.account import account, fingerprints_of, settings_of, versions
from bezoar.guarding.cleaning import Cleaned, clean
from bezoar.guarding.finding import Findings, check_decisions, find
from bezoar.guarding.healing import heal
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.outcome import Guarded, conclude
from bezoar.guarding.settings import RULE, TOOLS, Guard, Tools
from bezoar.guarding.task import WORK, Set, Task, check_same_set, make_task
from bezoar.models import DualEncoder
from bezoar.report import Decisions, write_page
from bezoar.runtime import Runtime
from bezoar.storage import RunLock, save_detection, write_json, write_run


def guard(
    data: Set,
    *,
    out: str | Path,
    model: str | nn.Module | None = None,
    encoder: str | nn.Module | None = None,
    clip: str | DualEncoder | None = None,
    reference: str | DualEncoder | None = None,
    test: Set | None = None,
    attack: str | Path | None = None,
    rule: Guard = RULE,
    tools: Tools = TOOLS,
    skip: Collection[str] = (),
    decisions: Decisions | None = None,
    image_size: int | None = None,
    unsafe_pickle: bool = False,
    command: str = "",
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Guarded:
    """Find the poison in a set, write the set without it, and mend the model.

    A run that was killed goes on where it stopped when it is called again with the
    same folder; what depends on a setting that was changed is done again, and nothing
    else. A step that cannot run says why, and the rest goes on. The set, the model and
    all else that is given stay as they are.

    Args:
        data: The set: a path, a Hub id, or what ``open_source`` returned.
        out: Folder for everything that is found and made; new, or of an earlier guard
            of the same set.
        model: A classifier that was trained on the set, or where it is; None trains
            one.
        encoder: An encoder instead; for images without labels.
        clip: An image-text model that was trained on the set, or where it is; the set
            is read with its captions, and the model is repaired.
        reference: A clean image-text model of the same kind to compare it with.
        test: Clean, labelled test images, to measure the model before and after.
        attack: Manifest of the attack whose trigger is shown on them; no other step
            looks at it.
        rule: What becomes of an image.
        tools: The methods, with their settings.
        skip: Steps of ``STEPS`` that are not to be done.
        decisions: What a person decided on the page (``read_decisions``); it has
            precedence over the rule.
        image_size: Height and width that images are scored in; None takes what the
            model was made for, else the most common size up to 224.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        command: The command as it was typed, for the report.
        seed: Seeds everything random.
        runtime: Where and how to run; its ``work_dir`` is not used.

    Returns:
        What it came to. An ``EmptyError`` follows a set without any image, an
        ``InputError`` things that make no sense together.
    """
    task = make_task(
        data,
        out=out,
        model=model,
        encoder=encoder,
        clip=clip,
        reference=reference,
        test=test,
        attack=attack,
        rule=rule,
        tools=tools,
        skip=skip,
        decisions=decisions,
        image_size=image_size,
        unsafe_pickle=unsafe_pickle,
        seed=seed,
        runtime=runtime,
        command=command,
    )
    with RunLock(task.folder):
        ledger = Ledger(task.folder, skip=task.skip)
        check_same_set(task)
        _tell(task, ledger, "running")
        try:
            guarded = _guarded(task, ledger)
        except BaseException:
            _tell(task, ledger, "failed")
            raise
        _tell(task, ledger, "done")
    return guarded


def _guarded(task: Task, ledger: Ledger) -> Guarded:
    findings = find(task, ledger)
    check_decisions(task, findings)
    cleaned = clean(task, ledger, findings)
    healed = heal(task, ledger, findings, cleaned)
    parts = findings, cleaned, healed
    guarded = conclude(task.folder, tuple(ledger.steps), *parts)
    ledger.do(
        "report",
        key="",
        make=lambda: _report(task, guarded, findings, cleaned),
    )
    shutil.rmtree(task.folder / WORK, ignore_errors=True)
    return conclude(task.folder, tuple(ledger.steps), *parts)


def _report(
    task: Task, guarded: Guarded, findings: Findings, cleaned: Cleaned
) -> tuple[Path, str]:
    report = account(task, guarded, findings, cleaned)
    bad = [{"id": u.id, "reason": u.reason} for u in findings.unreadable]
    extra = {"report": report, "unreadable": bad}
    if findings.found is None:
        write_json(task.folder / "report.json", {"format": 1, **extra})
    else:
        save_detection(
            findings.found, task.folder, unreadable=findings.unreadable, extra=extra
        )
    return write_page(task.folder), "open report.html in a browser"


def _tell(task: Task, ledger: Ledger, status: str) -> None:
    write_run(
        task.folder,
        command=task.command,
        settings=settings_of(task),
        seed=task.seed,
        versions=versions(),
        fingerprints=fingerprints_of(task),
        timings={s.name: s.seconds for s in ledger.steps if s.seconds is not None},
        status=status,
    )
