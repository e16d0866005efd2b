"""Hostile files by the thousand, and what must not come of them.

A look ends well where it comes to a result or to a ``BezoarError``. Any other error, a
program that ran, a file outside the folder of the run, more memory or more time than
there is for it, or a process that dies is a fault.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bezoar.bench import hostile
from bezoar.bench.hostile_models import cards, weights
from bezoar.bench.hostile_pages import decisions, reports
from bezoar.bench.hostile_sets import caption_files, images, tables, tars

Look = Callable[[random.Random, Path], None]
LOOKS: dict[str, Look] = {
    look.__name__: look
    for look in (
        images,
        tars,
        tables,
        caption_files,
        weights,
        cards,
        decisions,
        reports,
    )
}
SECONDS = 20  # for one look; nearly all take some milliseconds
MEMORY = 2 << 30  # beyond what the process holds before


@dataclass
class Looked:
    """What came of hostile files.

    Attributes:
        tried: How many were looked at.
        faults: What went wrong, with the seed that makes the file again.
    """

    tried: int = 0
    faults: list[str] = field(default_factory=list)


def look_at_many(kind: str, *, first: int, count: int) -> Looked:
    """Make files of a kind and look at them, in a process with bounds.

    Args:
        kind: One of ``LOOKS``.
        first: Seed of the first file.
        count: How many.

    Returns:
        What came of it.
    """
    found, seed = Looked(), first
    while seed < first + count:
        done, words = _in_bounds(kind, seed, first + count)
        seed = done
        if words:
            found.faults.append(f"{kind} {done}: {words}")
            seed += 1  # the others are looked at in a process of their own
        found.tried = seed - first
    return found


def look_at(kind: str, chance: random.Random) -> None:
    """Make one file of a kind and look at it, in a folder that is watched.

    Args:
        kind: One of ``LOOKS``.
        chance: Where the file comes from.
    """
    place, before = Path(tempfile.mkdtemp()), Path.cwd()
    os.chdir(place)
    try:
        with watched(place) as folder:
            LOOKS[kind](chance, folder)
    finally:
        os.chdir(before)
        shutil.rmtree(place)


@contextmanager
def watched(folder: Path) -> Iterator[Path]:
    """Lend a folder in a folder, and see that nothing came into being beside it.

    Args:
        folder: A new folder; the process has to stand in it.

    Yields:
        An empty folder.
    """
    inner = folder / "a" / "b" / "c" / "run"
    inner.mkdir(parents=True)
    yield inner
    beside = [p for p in folder.rglob("*") if inner not in (p, *p.parents)]
    stray = [p for p in beside if p not in inner.parents]
    assert not stray, f"written outside the folder: {stray}"
    assert not list(folder.rglob(hostile.MARK)), "a program in a file was run"


def _in_bounds(kind: str, seed: int, end: int) -> tuple[int, str]:
    # The seed that a fork of this process came to, and what went wrong there.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _looker(kind, seed, end, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as lines:
        told = [json.loads(line) for line in lines if line.endswith("\n")]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = told[-1]["seed"] if told else seed
    words = told[-1]["words"] if told else ""
    if code != 0 and not words:
        words = f"the process ended with {code}"
    return done, words


def _looker(kind: str, seed: int, end: int, writer: int) -> None:
    code = 1
    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in range(seed, end):
            os.write(writer, json.dumps({"seed": number, "words": ""}).encode() + b"\n")
            signal.alarm(SECONDS)  # which ends the process
            try:
                look_at(kind, random.Random(f"{kind} {number}"))
            except BaseException:
                words = traceback.format_exc()[-1500:]
                told = json.dumps({"seed": number, "words": words})
                os.write(writer, told.encode() + b"\n")
                os._exit(0)
        os.write(writer, json.dumps({"seed": end, "words": ""}).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)
