"""One run of a detector over a set, from the model to the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from bezoar.catalog import name_of
from bezoar.cli.detection_page import detection_report
from bezoar.cli.detection_text import Outcome, remarks_on
from bezoar.cli.runs import Run, check_free, digest, write_set
from bezoar.cli.sets import fingerprint_of
from bezoar.cli.victim import Victim
from bezoar.data import ImageSource, Unreadable
from bezoar.engine import (
    Detector,
    detect_together,
    detect_with,
    masked_worst,
    uses_model,
)
from bezoar.models import fingerprint
from bezoar.report import Decisions, write_page
from bezoar.results import Detection
from bezoar.runtime import Runtime
from bezoar.storage import save_detection


def scan(
    source: ImageSource,
    method: Detector | Mapping[str, Detector],
    *,
    victim: Victim,
    image_size: tuple[int, int],
    reference: Detection | None,
    clean: Path | None,
    seed: int,
    runtime: Runtime,
    command: str,
    decisions: Decisions | None = None,
) -> Outcome:
    """Score a set, judge it, and write all that is known.

    Args:
        source: The images.
        method: A detector, or several by name.
        victim: The model, or how to train it.
        image_size: Height and width that images are resized to.
        reference: A detection on clean images with the same settings.
        clean: Where to write the set without the flagged images, if at all.
        seed: Seeds everything random.
        runtime: Where and how to run; its ``work_dir`` is the folder of the run.
        command: The command as it was typed.
        decisions: What a person decided of images.

    Returns:
        What came of it.
    """
    folder = runtime.work_dir
    assert folder is not None  # the caller gave --out
    needs_model = any(map(uses_model, _every(method)))
    settings = _settings(method)
    data_key = fingerprint_of(source, report=runtime.progress)
    run = Run(
        folder=folder,
        command=command,
        settings=settings,
        seed=seed,
        fingerprints={
            "data": data_key,
            "run": digest(
                settings=settings,
                victim=victim.facts,
                seed=seed,
                image_size=image_size,
                data=data_key,
            ),
        },
    )
    if not run.take_over() and clean is not None:
        check_free(clean, option="--clean")
    with run.going_on():
        model = None
        with run.stage("model"):
            if needs_model:
                model = victim.ready(
                    source, folder=folder, image_size=image_size, runtime=runtime
                )
                run.fingerprints["model"] = fingerprint(model)
        with run.stage("detect"):
            found, unreadable = _detected(
                source,
                method,
                model=model,
                image_size=image_size,
                reference=reference,
                seed=seed,
                runtime=runtime,
            )
        with run.stage("write"):
            decided, remarks = _decided(found, decisions, data=data_key)
            remarks += victim.remarks
            report = detection_report(
                found,
                source=source,
                model=model,
                image_size=image_size,
                unreadable=unreadable,
                remarks=remarks_on(found, remarks),
                decisions={} if decisions is None else decisions.by_id,
                run=run,
                runtime=runtime,
            )
            extra = {"report": report}
            save_detection(decided, folder, unreadable=unreadable, extra=extra)
            write_page(folder)
            num_written = _write_clean(source, decided, clean)
    return Outcome(
        found=decided,
        unreadable=unreadable,
        folder=folder,
        model=victim.text if needs_model else "none: the method trains its own",
        clean=clean,
        num_written=num_written,
        remarks=remarks,
        seconds=run.timings,
    )


def _decided(
    found: Detection, decisions: Decisions | None, *, data: str
) -> tuple[Detection, tuple[str, ...]]:
    if decisions is None:
        return found, ()
    return decisions.apply(found, data=data), (decisions.remark(),)


def _every(method: Detector | Mapping[str, Detector]) -> Sequence[Detector]:
    return tuple(method.values()) if isinstance(method, Mapping) else (method,)


def _settings(method: Detector | Mapping[str, Detector]) -> dict[str, object]:
    if isinstance(method, Mapping):
        return {name: asdict(one) for name, one in method.items()}
    return {"method": name_of(method), **asdict(method)}


def _detected(
    source: ImageSource,
    method: Detector | Mapping[str, Detector],
    *,
    model: nn.Module | None,
    image_size: tuple[int, int],
    reference: Detection | None,
    seed: int,
    runtime: Runtime,
) -> tuple[Detection, tuple[Unreadable, ...]]:
    if isinstance(method, Mapping):
        panel, unreadable = detect_together(
            source,
            methods=method,
            model=model,
            image_size=image_size,
            seed=seed,
            runtime=runtime,
        )
        return panel.combined, unreadable
    found, unreadable = detect_with(
        source,
        method=method,
        model=model,
        image_size=image_size,
        reference=reference,
        seed=seed,
        runtime=runtime,
    )
    found = masked_worst(
        found,
        source,
        method=method,
        model=model,
        image_size=image_size,
        seed=seed,
        runtime=runtime,
    )
    return found, unreadable


def _write_clean(source: ImageSource, found: Detection, clean: Path | None) -> int:
    if clean is None or not found.flagged.any():
        return 0
    flagged = {found.ids[i] for i in found.flagged.nonzero().flatten().tolist()}
    return write_set(source, clean, keep=lambda id_: id_ not in flagged)
