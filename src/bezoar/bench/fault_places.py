"""Faults that are no kill: full and read-only disks, damage, clocks, a second run."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bezoar.bench.faults import (
    FINISHED,
    REFUSED,
    WORDS,
    Job,
    Tally,
    end,
    files,
    is_whole,
    leftovers,
    start,
    timed,
    told,
)

NOBODY = 65_534
_JUMP = 10 * 365 * 86_400.0  # seconds that a clock jumps
_FULL = ("No space left", "File too large")
_CLOCKS = ("time", "monotonic", "perf_counter")


@contextmanager
def little_room(folder: Path, *, kib: int) -> Iterator[str]:
    """Lend a folder in which writing soon fails.

    Args:
        folder: A new folder.
        kib: What there is room for; where nothing can be mounted, in any one file.

    Yields:
        How: "tmpfs", or "RLIMIT_FSIZE" of this process and its children.
    """
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    is_root = os.geteuid() == 0 and shutil.which("mount") is not None
    if (
        is_root
        and subprocess.run(words, capture_output=True, check=False).returncode == 0
    ):
        try:
            yield "tmpfs"
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, hard))
    try:
        yield "RLIMIT_FSIZE"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(job: Job, folder: Path, whole: Path, *, chance: random.Random) -> Tally:
    """Run a job until the disk is full, then go on where there is room.

    Args:
        job: The job.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Says how much room there is.

    Returns:
        What came of it.
    """
    tally, place = Tally(), folder / "disk" / "run"
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    share = chance.uniform(0.1, 0.9)
    with little_room(folder / "disk", kib=max(1, int(max(sizes) * share) >> 10)):
        _, code = timed(job, place, words=folder / WORDS)
        _refused(tally, job, code, place.parent, words=_FULL)
        tally.half_written += sum(not is_whole(path) for path in place.rglob("*"))
        if place.exists():
            shutil.copytree(place, folder / "run")
    return _goes_on(tally, job, folder / "run", whole)


def read_only(job: Job, folder: Path, whole: Path, *, chance: random.Random) -> Tally:
    """Run a job where it may not write.

    Args:
        job: The job.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Is not asked.

    Returns:
        What came of it.
    """
    del chance
    tally, place = Tally(), folder / "locked" / "run"

    def work(place: Path) -> None:
        if os.geteuid() == 0:  # root may write anywhere
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        job.work(place)

    place.mkdir(parents=True)
    place.chmod(0o555)
    _, code = timed(replace(job, work=work), place)
    _refused(tally, job, code, place, words=("Permission denied",))
    place.chmod(0o755)
    return _goes_on(tally, job, place, whole)


def damaged(job: Job, folder: Path, whole: Path, *, chance: random.Random) -> Tally:
    """Change a byte of what a killed run kept, or cut it off, and go on.

    Blocks are made again, unless all that is read of them is as it was; a checkpoint is
    refused until it is removed.

    Args:
        job: The job.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Says which file and where.

    Returns:
        What came of it.
    """
    tally, place = Tally(), folder / "run"
    stop_half_way(job, place)
    kept = [p for p in place.rglob("*") if p.is_file() and _keeps_work(p)]
    if not kept:
        tally.failures.append(f"{job.name}: nothing was kept to damage")
        return tally
    victim = chance.choice(sorted(kept))
    content = bytearray(victim.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.3:
        del content[chance.randrange(len(content)) :]
    victim.write_bytes(content)
    _, code = timed(job, place)
    if code == REFUSED and "amage" in told(place) and victim.name in told(place):
        victim.unlink()
        code = FINISHED
    if code != FINISHED:
        tally.failures.append(f"{job.name}, {victim.name} damaged: {told(place)}")
    ends = tuple(pattern for pattern in job.results if "blocks/" not in pattern)
    return _goes_on(tally, replace(job, results=ends), place, whole)


def jumping_clock(
    job: Job, folder: Path, whole: Path, *, chance: random.Random
) -> Tally:
    """Let clocks jump by ten years, back and forth, and files be from the future.

    Args:
        job: The job.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Says where to.

    Returns:
        What came of it.
    """
    tally, place = Tally(), folder / "run"
    stop_half_way(job, place)
    for path in place.rglob("*"):
        moment = time.time() + chance.uniform(-_JUMP, _JUMP)
        os.utime(path, (moment, moment))

    def work(place: Path) -> None:
        for name in _CLOCKS:
            setattr(time, name, _jumping(getattr(time, name), chance))
        job.work(place)

    _, code = timed(replace(job, work=work), place)
    if code != FINISHED:
        tally.failures.append(f"{job.name}, clock: {told(place)}")
    return _goes_on(tally, job, place, whole)


def second_run(job: Job, folder: Path, whole: Path, *, chance: random.Random) -> Tally:
    """Start a job a second time in the folder in which it is running.

    Args:
        job: The job.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Says when.

    Returns:
        What came of it: the second is refused, or both come to the same.
    """
    tally, place = Tally(), folder / "run"
    first = start(job, place)
    time.sleep(chance.uniform(0.05, 0.5))
    code = end(start(job, place, words=folder / "second.txt"))
    says = (folder / "second.txt").read_text(errors="replace")
    if code != FINISHED and not (code == REFUSED and "no other run" in says):
        tally.failures.append(f"{job.name}, second run: {says[-200:]}")
    if end(first) != FINISHED:
        tally.failures.append(f"{job.name}, first of two runs: {told(place)}")
    return _goes_on(tally, job, place, whole)


def dead_reader(job: Job, folder: Path, whole: Path, *, chance: random.Random) -> Tally:
    """Let the thread that reads the images end with an error of the disk.

    Args:
        job: A job that reads a set.
        folder: A new folder.
        whole: The folder of the same job, done without a fault.
        chance: Says when.

    Returns:
        What came of it.
    """
    import bezoar.data.source as reading

    tally, place = Tally(), folder / "run"
    left = chance.randrange(1, 12)
    decode: Callable[..., object] = vars(reading)["decode_records"]

    def fails(*given: object, **settings: object) -> object:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(5, "Input/output error")
        return decode(*given, **settings)

    def work(place: Path) -> None:
        vars(reading)["decode_records"] = fails
        job.work(place)

    _, code = timed(replace(job, work=work), place)
    if code == FINISHED or "Input/output error" not in told(place):
        tally.failures.append(f"{job.name}, dead reader: {told(place)}")
    return _goes_on(tally, job, place, whole)


def stop_half_way(job: Job, place: Path) -> None:
    """Kill a job once something of it has been kept.

    Args:
        job: The job.
        place: Its folder.

    Raises:
        TimeoutError: If it keeps nothing within a minute.
    """
    victim = start(job, place)
    for _ in range(60_000):
        if job.progress(place) > 0 or os.waitpid(victim, os.WNOHANG)[0]:
            break
        time.sleep(0.001)
    else:
        raise TimeoutError(f"{job.name} kept nothing within a minute")
    try:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
    except (ProcessLookupError, ChildProcessError):  # it had ended by itself
        pass


def _refused(
    tally: Tally, job: Job, code: int, place: Path, *, words: tuple[str, ...]
) -> None:
    says = told(place)
    if (
        code != REFUSED
        or "StorageError" not in says
        or not any(w in says for w in words)
    ):
        tally.failures.append(f"{job.name}: expected a refusal, got {code}, {says}")


def _goes_on(tally: Tally, job: Job, place: Path, whole: Path) -> Tally:
    _, code = timed(job, place)
    if code != FINISHED:
        tally.failures.append(f"{job.name}, gone on: {told(place)}")
    elif files(place, job.results) != files(whole, job.results):
        tally.failures.append(f"{job.name}: another result after a fault")
    tally.leftovers += len(leftovers(place))
    tally.survived += not tally.failures
    shutil.rmtree(place)
    return tally


def _keeps_work(path: Path) -> bool:
    return path.name.endswith("training.safetensors") or path.parent.name == "blocks"


def _jumping(clock: Callable[[], float], chance: random.Random) -> Callable[[], float]:
    return lambda: clock() + chance.uniform(-_JUMP, _JUMP)
