"""``bezoar demo``: the whole of it on handwritten digits, in about a minute."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import nn
from tyro.conf import OmitArgPrefixes, arg

from bezoar.attacks import BadNets, write_manifest
from bezoar.cli.demo_page import demo_report
from bezoar.cli.demo_pairs import demo_pairs, pairs_text
from bezoar.cli.demo_text import demo_text
from bezoar.cli.drills import write_drill
from bezoar.cli.failures import DONE
from bezoar.cli.options import RUNNING, Running, parse
from bezoar.cli.progress import Report, bars
from bezoar.cli.runs import told_in, versions
from bezoar.cli.text import say, say_json
from bezoar.data import (
    ImageData,
    content_keys,
    digit_images,
    open_source,
    write_images,
)
from bezoar.detect import CognitiveDistillation
from bezoar.errors import InputError
from bezoar.metrics import auroc, evaluate
from bezoar.models import Architecture
from bezoar.report import read_report, write_page
from bezoar.results import Detection, Evaluation, Poisoned
from bezoar.runtime import Progress, Runtime
from bezoar.storage import RunLock, write_json
from bezoar.train import Training, train_classifier

NUM_TEST = 500
IMAGE_SIZE = 32
ARCHITECTURE = Architecture(name="convnet", num_classes=10, width=16)
TRAINING = Training(epochs=20)
ATTACK = BadNets(poison_rate=0.05, target_class=0)
DETECTOR = CognitiveDistillation(num_masks=24)


def command(words: Sequence[str]) -> int:
    """Run ``bezoar demo``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(demo, "demo", words)


def demo(
    *,
    out: Annotated[str, arg(metavar="PATH")] = "build/demo",
    part: Literal["all", "digits", "pairs"] = "all",
    seed: int = 0,
    json: bool = False,
    running: OmitArgPrefixes[Running] = RUNNING,
) -> int:
    """Poison handwritten digits, find the poison, drop it, retrain, and measure.

    Nothing is downloaded: the 1,797 digits come with scikit-learn. A twentieth of the
    training images gets a small square in a corner and the label 0; the detector is
    told nothing of this. Then the same with made-up pairs of digits and captions, some
    of them planted, and a model that is made to forget them.

    Args:
        out: Folder for report.html, report.json and for the images, to look at and to
            try the other verbs on.
        part: "digits" for the classifier alone, "pairs" for the image-text model.
        seed: Seeds everything random.
        json: Print one JSON object instead of text.
        running: On what to run.

    Returns:
        0.
    """
    folder = Path(out)
    told: list[str] = []
    plain: dict[str, object] = {}
    with RunLock(folder), bars() as report:
        runtime = running.runtime(report)
        if part != "pairs":
            told.append(_digits(folder, seed=seed, runtime=runtime, report=report))
            plain |= told_in(folder)
        if part != "digits":
            place = folder / "pairs"
            told.append(
                pairs_text(demo_pairs(place, seed=seed, runtime=runtime), place)
            )
            plain["pairs"] = read_report(place)["verdict"]
    if json:
        say_json(plain)
    else:
        say("\n\n".join(told))
    return DONE


def _digits(folder: Path, *, seed: int, runtime: Runtime, report: Report) -> str:
    start = time.perf_counter()
    seconds: dict[str, float] = {}
    train, test = split(digit_images(size=IMAGE_SIZE), seed=seed)
    with _stage("poison", seconds, report) as told:
        drill = ATTACK.poison(train, seed=seed, runtime=told(runtime))
        _keep(folder, train, test, drill)
    with _stage("train", seconds, report) as told:
        victim = _trained(drill.data, seed=seed, runtime=told(runtime))
        before = evaluate(victim, test, attack=ATTACK)
    with _stage("detect", seconds, report) as told:
        found = DETECTOR.detect(
            drill.data, model=victim, seed=seed, runtime=told(runtime)
        )
    with _stage("retrain", seconds, report) as told:
        healed = _trained(found.keep(drill.data), seed=seed, runtime=told(runtime))
        after = evaluate(healed, test, attack=ATTACK)
    seconds["total"] = round(time.perf_counter() - start, 3)
    figures = _report(drill, found, before, after, seconds=seconds, seed=seed)
    page = demo_report(
        drill,
        found,
        before,
        after,
        victim=victim,
        figures=figures,
        command=f"bezoar demo --seed {seed}",
    )
    write_json(folder / "report.json", {**figures, "report": page})
    write_page(folder)
    return demo_text(drill, found, before, after, seconds=seconds, folder=folder)


def split(data: ImageData, *, seed: int) -> tuple[ImageData, ImageData]:
    """Split a set in two by a keyed hash of each image's content.

    Args:
        data: All images.
        seed: Another seed gives another split.

    Returns:
        The training images, and ``NUM_TEST`` test images.
    """
    keys = [
        hashlib.blake2b(repr((seed, "demo", key)).encode(), digest_size=16).digest()
        for key in content_keys(data.images)
    ]
    order = sorted(range(len(data)), key=lambda i: (keys[i], data.ids[i]))
    is_test = torch.zeros(len(data), dtype=torch.bool)
    is_test[order[:NUM_TEST]] = True
    return data.subset(~is_test), data.subset(is_test)


@contextmanager
def _stage(
    name: str, seconds: dict[str, float], report: Report
) -> Iterator[Callable[[Runtime], Runtime]]:
    # Takes the time, and gives a bar of its own to what a stage reports.
    start = time.perf_counter()

    def told(runtime: Runtime) -> Runtime:
        def relay(progress: Progress) -> None:
            stage = name if progress.stage == "train" else progress.stage
            report(replace(progress, stage=stage))

        return replace(runtime, progress=relay)

    yield told
    seconds[name] = round(time.perf_counter() - start, 3)


def _trained(data: ImageData, *, seed: int, runtime: Runtime) -> nn.Module:
    network = replace(
        ARCHITECTURE, class_names=data.class_names, image_size=IMAGE_SIZE
    ).build(seed)
    return train_classifier(
        network, data=data, settings=TRAINING, seed=seed, runtime=runtime
    )


def _keep(folder: Path, train: ImageData, test: ImageData, drill: Poisoned) -> None:
    # The images, for the eye and for the other verbs; a second run finds them there.
    for name, data in (("train", train), ("test", test), ("poisoned", drill.data)):
        place = folder / name
        if place.exists():
            _check_same(place, data)
        elif name == "poisoned":
            written = write_drill(drill, place, source_format="class_folders")
            write_manifest(written, folder / "poisoned.manifest.json")
        else:
            write_images(data, place, format="class_folders")


def _check_same(place: Path, data: ImageData) -> None:
    lies_there, _ = open_source(place).read(image_size=(IMAGE_SIZE, IMAGE_SIZE))
    keys = sorted(zip(content_keys(data.images), data.labels.tolist(), strict=True))
    found = zip(
        content_keys(lies_there.images), lies_there.labels.tolist(), strict=True
    )
    if sorted(found) != keys:
        raise InputError(
            f"expected a new folder or one of a demo with this seed, got other images "
            f"in {str(place)!r}; choose another --out or remove it"
        )


def _report(
    drill: Poisoned,
    found: Detection,
    before: Evaluation,
    after: Evaluation,
    *,
    seconds: dict[str, float],
    seed: int,
) -> dict[str, object]:
    verdict = found.verdict
    return {
        "detection": {
            "auroc": auroc(found.scores, drill.is_poison),
            "verdict": verdict.status,
            "summary": verdict.summary,
            "num_images": len(found.ids),
            "num_poisoned": len(drill.poison_indices),
            "num_flagged": verdict.num_flagged,
            "num_hits": int((found.flagged & drill.is_poison).sum()),
            "expected_false_alarms": verdict.expected_false_alarms,
            "poison_rate": verdict.poison_rate,
            "target_class": verdict.target_class,
            "health": verdict.health,
        },
        "before": asdict(before),
        "after": asdict(after),
        "seed": seed,
        "settings": {
            "num_test": NUM_TEST,
            "architecture": asdict(ARCHITECTURE),
            "training": asdict(TRAINING),
            "attack": asdict(ATTACK),
            "detector": found.provenance.settings,
        },
        "seconds": seconds,
        "versions": versions(),
    }
