"""Runs that are killed again and again, and what is left of them.

A victim is a fork of this process, so that the library is imported once and not a
hundred times; nothing heavy may run before it, for threads do not outlive a fork.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import safe_open

from bezoar.errors import BezoarError
from bezoar.files import PARTIAL

FINISHED, REFUSED, BROKEN = 0, 2, 1
WORDS = "stderr.txt"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something that can be killed and goes on when it is called again.

    Attributes:
        name: What it is.
        work: Does all of it in a folder, or what is left of it.
        results: Patterns of the files that have to be the same in the end, byte for
            byte.
        progress: How much is done for good in a folder; it must never become less.
    """

    name: str
    work: Callable[[Path], None]
    results: tuple[str, ...]
    progress: Callable[[Path], int]


@dataclass
class Tally:
    """What came of the faults so far.

    Attributes:
        survived: Faults after which the run went on, or said what happened.
        lost: Faults after which something that had been finished was gone.
        half_written: Files under their own names that were not whole.
        leftovers: Temporary files that were there when the run was over.
        failures: What else went wrong, in words.
        moments: When runs were killed, as shares of their whole time.
    """

    survived: int = 0
    lost: int = 0
    half_written: int = 0
    leftovers: int = 0
    failures: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what came of other faults.

        Args:
            other: Of them.
        """
        self.survived += other.survived
        self.lost += other.lost
        self.half_written += other.half_written
        self.leftovers += other.leftovers
        self.failures += other.failures
        self.moments += other.moments


def warmed_up() -> None:
    """Load what a victim would load: the optimisers of torch, which takes a second."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


def kill_again_and_again(job: Job, folder: Path, *, kills: int, seed: int) -> Tally:
    """Kill a job at moments all over its running time, and let it go on each time.

    Every folder sees up to three kills before its job may end. The moments are drawn
    one from each of as many equal shares of the time as there are kills. What the job
    comes to without a kill stays in the folder ``whole``.

    Args:
        job: What to kill.
        folder: A new folder for all that it writes.
        kills: How many.
        seed: Seeds the moments.

    Returns:
        What came of it.
    """
    chance, tally = random.Random(f"{seed} {job.name}"), Tally()
    whole = folder / "whole"
    seconds, code = timed(job, whole)
    if code != FINISHED:
        tally.failures.append(f"{job.name}: {told(whole)}")
        return tally
    moments = [(i + chance.random()) / kills for i in range(kills)]
    chance.shuffle(moments)
    for turn in range(20 * kills):
        if not moments:
            break
        place = folder / str(turn)
        for _ in range(chance.randint(1, 3)):
            if not moments or not _killed(job, place, moments, seconds, tally):
                break
            _look(job, place, whole, tally)
        _, code = timed(job, place)
        if code != FINISHED:
            tally.failures.append(f"{job.name}, gone on: {told(place)}")
        elif files(place, job.results) != files(whole, job.results):
            tally.failures.append(f"{job.name}: another result after a kill")
        tally.leftovers += len(leftovers(place))
        shutil.rmtree(place)
    tally.survived -= min(tally.survived, len(tally.failures))
    return tally


def _killed(
    job: Job, place: Path, moments: list[float], seconds: float, tally: Tally
) -> bool:
    # Whether it was killed, and not over before: what went on takes less time.
    is_new, before = not place.exists(), job.progress(place)
    victim = start(job, place)
    time.sleep(moments[-1] * seconds)
    os.kill(victim, signal.SIGKILL)
    if end(victim) != -signal.SIGKILL:
        if is_new:  # the machine is faster now than when the time was taken
            moments[-1] *= 0.9
        return False
    tally.lost += job.progress(place) < before
    tally.moments.append(moments.pop())
    tally.survived += 1
    return True


def _look(job: Job, place: Path, whole: Path, tally: Tally) -> None:
    expected = files(whole, job.results)
    for name, content in files(place, job.results).items():
        tally.half_written += content != expected.get(name, content)
    tally.half_written += sum(not is_whole(path) for path in place.rglob("*"))


def start(job: Job, place: Path, *, words: Path | None = None) -> int:
    """Begin a job in a process of its own.

    Args:
        job: The job.
        place: Its folder.
        words: File for what it says on stderr; None takes one beside its folder.

    Returns:
        The process.
    """
    words = words or place.with_name(WORDS)
    words.parent.mkdir(parents=True, exist_ok=True)
    victim = os.fork()
    if victim != 0:
        return victim
    code = BROKEN
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        torch.set_num_threads(1)
        job.work(place)
        code = FINISHED
    except BezoarError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
        code = REFUSED
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def end(victim: int) -> int:
    """Wait for a process.

    Args:
        victim: What ``start`` returned.

    Returns:
        Its exit code, or the negative number of the signal that ended it.
    """
    return os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])


def timed(job: Job, place: Path, *, words: Path | None = None) -> tuple[float, int]:
    """Let a job run to its end.

    Args:
        job: The job.
        place: Its folder.
        words: As for ``start``.

    Returns:
        Seconds, and the exit code.
    """
    begin = time.perf_counter()
    code = end(start(job, place, words=words))
    return time.perf_counter() - begin, code


def told(place: Path) -> str:
    """Return what the last job beside a folder said on stderr.

    Args:
        place: Its folder.

    Returns:
        The end of it, in one line.
    """
    text = place.with_name(WORDS).read_text(errors="replace")
    return " ".join(text.split())[-600:] or "it ended without a word"


def files(place: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files that patterns mean.

    Args:
        place: A folder.
        patterns: As for ``Path.glob``.

    Returns:
        Content by path below the folder; hidden files are left out.
    """
    found = {path for pattern in patterns for path in place.glob(pattern)}
    names = {path: path.relative_to(place) for path in found if path.is_file()}
    return {
        str(name): path.read_bytes()
        for path, name in sorted(names.items())
        if not any(part.endswith(PARTIAL) for part in name.parts)
    }


def leftovers(place: Path) -> list[str]:
    """Return what was begun below a folder and never got its name.

    Args:
        place: The folder of a job that is over.

    Returns:
        Paths below it.
    """
    names = (path.relative_to(place) for path in sorted(place.rglob(".*")))
    return [str(n) for n in names if PARTIAL in n.name or n.name.startswith(".tmp")]


def is_whole(path: Path) -> bool:
    """Whether a file under its own name can be read to its end.

    Args:
        path: A file of a kind that is written here; others, hidden ones and folders
            count as whole.

    Returns:
        False for a file that is cut off or damaged.
    """
    hidden = any(part.endswith(PARTIAL) for part in path.parts)
    reader = _READERS.get(path.suffix)
    if hidden or reader is None or not path.is_file():
        return True
    try:
        reader(path)
    except Exception:  # whatever a reader meets in half a file
        return False
    return True


def _tensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def _picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".parquet": lambda path: pq.read_table(path, use_threads=False),
    ".safetensors": _tensors,
    ".png": _picture,
    ".html": _page,
}
