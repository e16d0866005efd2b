"""A hundred kills, full disks and thousands of hostile files: nothing may be lost.

Runs of everything that goes on after a kill, small enough for a second each: the
detection and the purification of a set, each training that keeps a checkpoint, and the
commands and the guard that are built of them. Each is killed at moments from all over
its running time, and must come to the same files, byte for byte, as a run that nobody
disturbed. Then files that somebody made to do harm are read: each must come to a result
or to one clear sentence, within bounds of time and memory. ``--seed 1`` draws others;
``BEZOAR_KILLS`` and ``BEZOAR_INPUTS`` in the environment say how many.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork keeps no other thread alive

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bezoar.bench.fault_jobs import ALL_DONE, blocks, kept, library_jobs
from bezoar.bench.fault_places import (
    damaged,
    dead_reader,
    full_disk,
    jumping_clock,
    read_only,
    second_run,
)
from bezoar.bench.faults import Job, Tally, kill_again_and_again, timed, warmed_up
from bezoar.bench.hostile_looks import LOOKS, look_at_many
from bezoar.bench.recipe import Claims, main
from bezoar.cli import detect as detect_command
from bezoar.cli import purify as purify_command
from bezoar.cli import train as train_command
from bezoar.cli.main import main as bezoar
from bezoar.cli.runs import was_cut_short
from bezoar.data import digit_images, noise_images, open_source, write_images
from bezoar.detect import CognitiveDistillation
from bezoar.errors import StorageError
from bezoar.guarding import Tools, guard
from bezoar.models import Architecture, save_model
from bezoar.report import Decisions
from bezoar.runtime import Progress
from bezoar.train import Training

LONG = True  # out of `make check`, where tests/bench/test_faults.py kills a few
NUM_KILLS = int(os.environ.get("BEZOAR_KILLS", "100"))
NUM_INPUTS = int(os.environ.get("BEZOAR_INPUTS", "2000"))
FAULTS = (full_disk, read_only, damaged, jumping_clock, second_run, dead_reader)
# The commands are imported here, so that no victim has to.
LOADED = (detect_command, purify_command, train_command)
TOOLS = Tools(
    detector=CognitiveDistillation(steps=4, l1_weight=0.01, threshold="review"),
    architecture=Architecture(name="convnet", num_classes=10, width=4),
    training=Training(epochs=3),
    final_training=Training(epochs=2),
)


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Kill every run, disturb it in other ways, and look at what is left."""
    warmed_up()
    kills, others = Tally(), Tally()
    with room() as folder:
        jobs = [*library_jobs(folder), *command_jobs(folder)]
        shares = shared(NUM_KILLS, len(jobs))
        for turn, (job, share) in enumerate(zip(jobs, shares, strict=True), start=1):
            place = folder / job.name.replace(" ", "-")
            if share:
                kills.add(
                    kill_again_and_again(job, place, kills=share, seed=claims.seed)
                )
            else:
                timed(job, place / "whole")
            for fault in FAULTS:
                if fits(fault, job):
                    chance = random.Random(f"{claims.seed} {job.name} {fault.__name__}")
                    others.add(
                        fault(job, place / "fault", place / "whole", chance=chance)
                    )
                    claims.facts[fault.__name__] = (
                        int(str(claims.facts.get(fault.__name__, 0))) + 1
                    )
            shutil.rmtree(place)
            report(Progress(stage="faults", done=turn, total=len(jobs)))
    state(claims, kills, others)
    look(claims, report)


def look(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Claim that hostile files did no harm."""
    tried, faults = 0, list[str]()
    for turn, (kind, share) in enumerate(
        zip(LOOKS, shared(NUM_INPUTS, len(LOOKS)), strict=True), start=1
    ):
        found = look_at_many(kind, first=10**6 * claims.seed, count=share)
        tried, faults = tried + found.tried, faults + found.faults
        report(Progress(stage="hostile files", done=turn, total=len(LOOKS)))
    claims.equal("hostile_inputs_tried", tried, NUM_INPUTS)
    claims.equal("hostile_inputs_survived", tried - len(faults), NUM_INPUTS)
    claims.facts["faults_by_input"] = faults[:20]


def state(claims: Claims, kills: Tally, others: Tally) -> None:
    """Claim that nothing was lost."""
    tried = sum(int(str(n)) for n in claims.facts.values())
    claims.equal("kills", len(kills.moments), NUM_KILLS)
    claims.equal("kills_survived", kills.survived, NUM_KILLS)
    claims.equal("other_faults_survived", others.survived, tried)
    both = Tally()
    both.add(kills)
    both.add(others)
    claims.equal("lost", both.lost, 0)
    claims.equal("half_written", both.half_written, 0)
    claims.equal("leftovers", both.leftovers, 0)
    claims.facts["kills_by_tenth_of_the_time"] = [
        sum(tenth / 10 <= m < (tenth + 1) / 10 for m in kills.moments)
        for tenth in range(10)
    ]
    claims.facts["failures"] = both.failures[:20]


def fits(fault: Callable[..., Tally], job: Job) -> bool:
    """Return whether a job can meet a fault."""
    if fault is damaged:
        return job.name != "guard"  # it keeps steps, and does a damaged one again
    return fault is not dead_reader or job.name in ("detect", "purify")


def shared(total: int, parts: int) -> list[int]:
    """Return a number as a sum of nearly equal ones.

    >>> shared(7, 3)
    [3, 2, 2]
    """
    return [total // parts + (i < total % parts) for i in range(parts)]


@contextmanager
def room() -> Iterator[Path]:
    """Lend a folder in memory where there is one: a victim waits for no disk."""
    memory = Path("/dev/shm")
    place = tempfile.mkdtemp(
        prefix="bezoar-faults-", dir=memory if os.access(memory, os.W_OK) else None
    )
    folder = Path(place)
    folder.chmod(0o755)  # a victim that may not write still has to read
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command_jobs(folder: Path) -> list[Job]:
    """Return the commands and the guard."""
    photos, model = folder / "photos", folder / "model.safetensors"
    data = noise_images(40)
    write_images(data, photos, format="class_folders")
    architecture = Architecture(
        name="convnet", num_classes=2, width=4, class_names=data.class_names
    )
    save_model(architecture.build(), model, architecture=architecture)
    drilled = folder / "drilled"
    few = digit_images(size=8).take(torch.arange(150))
    write_images(few, drilled, format="class_folders")
    first = open_source(drilled).read(image_size=(8, 8), limit=2)[0].ids
    wish = Decisions(by_id=dict.fromkeys(first, "drop"))

    def detect(place: Path) -> None:
        call(
            f"detect {photos} --model {model} --steps 2 --lr 0.5 --l1-weight 0.0001"
            f" --block-size 8 --out {place}/run --clean {place}/clean"
        )

    def purify(place: Path) -> None:
        if (place / "new").exists() and not was_cut_short(place / "run"):
            return  # it is done, and would be refused
        call(f"purify {photos} --block-size 8 --out {place}/new --run {place}/run")

    def train(place: Path) -> None:
        call(
            f"train {photos} --arch convnet --width 4 --epochs 6 --out"
            f" {place}/model.safetensors"
        )

    def guarded(place: Path) -> None:
        found = guard(drilled, out=place, tools=TOOLS, skip=["screen"], decisions=wish)
        bad = [f"{s.name}: {s.reason}" for s in found.steps if s.status == "failed"]
        if bad:
            raise StorageError("; ".join(bad))

    return [
        Job(
            name="bezoar detect",
            work=detect,
            results=("run/scores.parquet", "run/*.csv", "clean/**/*"),
            progress=lambda place: blocks(place, done="run/report.html"),
        ),
        Job(
            name="bezoar purify",
            work=purify,
            results=("run/changes.parquet", "new/**/*"),
            progress=lambda place: blocks(place, done="new"),
        ),
        Job(
            name="bezoar train",
            work=train,
            results=("model.safetensors", "model.json"),
            progress=lambda place: kept(place, done="model.json"),
        ),
        Job(
            name="guard",
            work=guarded,
            results=("clean/**/*", "trained/model.safetensors", "actions.parquet"),
            progress=steps,
        ),
    ]


def call(words: str) -> None:
    """Run a command; one that fails is an error with its own words."""
    code = bezoar(words.split())
    if code not in (0, 1):
        raise StorageError(f"the command ended with {code}")


def steps(place: Path) -> int:
    """Return how many steps of a guard are done."""
    path = place / "steps.json"
    if (place / "report.html").exists():
        return ALL_DONE
    if not path.exists():
        return 0
    rows = json.loads(path.read_text())["steps"]
    return sum(row["status"] in ("done", "restored") for row in rows)


if __name__ == "__main__":
    sys.exit(main("faults", body))
