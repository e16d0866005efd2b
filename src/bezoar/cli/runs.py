"""The folder of a run: whose it is, and what is known about it."""

from __future__ import annotations

import filecmp
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from bezoar import __version__
from bezoar.data import ImageSource, write_source
from bezoar.engine import RANKING
from bezoar.errors import BezoarError, InputError, StorageError
from bezoar.files import workplace
from bezoar.storage import read_object, write_run

_RESULTS = (
    "model.safetensors",
    "training.safetensors",
    "scores.parquet",
    "changes.parquet",
)
_SETTINGS = "prepared.json"  # what detect_source calibrated before the first block


@dataclass(kw_only=True)
class Run:
    """One run, as ``run.json`` tells it.

    Attributes:
        folder: Where it writes.
        command: As it was typed.
        settings: Of the method and the command.
        seed: The seed given.
        fingerprints: Of data and model, by name; "run" is that of all that decides
            the scores.
        timings: Seconds by stage.
    """

    folder: Path
    command: str
    settings: Mapping[str, object]
    seed: int
    fingerprints: dict[str, str]
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Say in ``run.json`` that the run is going on, then how it ended."""
        self.write("running")
        try:
            yield
        except BaseException:
            with suppress(BezoarError):  # the first error is the one to tell
                self.write("failed")
            raise
        self.write("done")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage.

        Args:
            name: What it is called in ``run.json``.
        """
        start = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - start, 3)

    def write(self, status: str) -> None:
        """Write ``run.json``.

        Args:
            status: "running", "done" or "failed".
        """
        write_run(
            self.folder,
            command=self.command,
            settings=self.settings,
            seed=self.seed,
            versions=versions(),
            fingerprints=self.fingerprints,
            timings=self.timings,
            status=status,
        )

    def take_over(self) -> bool:
        """Make sure that the folder is new, or holds the beginning of this very run.

        What another run left before it had any result is in nobody's way.

        Returns:
            Whether this run had begun before.

        Raises:
            StorageError: If it holds results of another run, or of unknown origin.
        """
        told = self.folder / "run.json"
        found = read_object(told).get("fingerprints") if told.exists() else None
        if isinstance(found, dict) and found.get("run") == self.fingerprints["run"]:
            return True
        results = [self.folder / name for name in _RESULTS]
        for place in ("blocks", f"{RANKING}/blocks"):
            results += sorted((self.folder / place).glob("*.parquet"))
        for path in results:
            if path.exists():
                raise StorageError(
                    f"expected a new folder, or this run's own, got {path.name!r} of "
                    f"other data, settings or another model in {str(self.folder)!r}; "
                    "choose another --out or remove it"
                )
        (self.folder / _SETTINGS).unlink(missing_ok=True)
        return False


def digest(**facts: object) -> str:
    """Return a short text for facts that plain values tell.

    Args:
        **facts: What decides a result.

    Returns:
        A hexadecimal hash.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on.

    Returns:
        Versions by name.
    """
    names = ("torch", "numpy", "pillow", "pyarrow", "safetensors")
    return {"bezoar": __version__} | {name: version(name) for name in names}


def told_in(folder: Path) -> dict[str, object]:
    """Return what ``report.json`` holds, without what only the page needs.

    Args:
        folder: The folder of a run.

    Returns:
        Plain values: figures for a pipe, no pictures.
    """
    told = read_object(folder / "report.json")
    told.pop("report", None)
    return told


def check_outside(place: Path, data: str, *, option: str) -> None:
    """Check that nothing is written into the set that is read.

    Args:
        place: Where to write.
        data: The set as it was given.
        option: What the place was given as.

    Raises:
        InputError: If the place lies in the set.
    """
    whole = Path(data)
    if whole.is_dir() and place.resolve().is_relative_to(whole.resolve()):
        raise InputError(
            f"expected a place for {option} outside the set, got {str(place)!r} in "
            f"{data!r}; choose another"
        )


def was_cut_short(folder: Path) -> bool:
    """Whether a folder is that of a run that did not come to its end.

    Args:
        folder: The folder of a run, or nothing.

    Returns:
        True where the same command may go on.
    """
    told = folder / "run.json"
    return told.exists() and read_object(told).get("status") != "done"


def write_set(
    source: ImageSource,
    out: Path,
    *,
    keep: Callable[[str], bool],
    images: Callable[[str], Tensor | None] | None = None,
) -> int:
    """Write a set where a run of this command may have written it before it was killed.

    Args:
        source: The set that is read.
        out: Where to write.
        keep: The ids to keep.
        images: New images by id.

    Returns:
        How many images were written. An ``InputError`` follows a place that holds
        anything else than this very set.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return write_source(source, out, keep=keep, images=images)
    with workplace(out) as folder:
        again = folder / out.name
        count = write_source(source, again, keep=keep, images=images)
        if not _is_same(again, out):
            check_free(out, option="the set that is written")
    return count


def _is_same(one: Path, other: Path) -> bool:
    if one.is_file() and other.is_file():
        return filecmp.cmp(one, other, shallow=False)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    found = sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    if files != found:
        return False
    _, others, errors = filecmp.cmpfiles(one, other, files, shallow=False)
    return not others and not errors


def check_free(place: Path, *, option: str) -> None:
    """Check that nothing would be overwritten.

    Args:
        place: Where to write a new set or file.
        option: What the place was given as.

    Raises:
        InputError: If there is something already.
    """
    is_empty_folder = place.is_dir() and not any(place.iterdir())
    if (place.exists() or place.is_symlink()) and not is_empty_folder:
        raise InputError(
            f"expected a new place for {option}, got {str(place)!r}, where something "
            "is already; choose another or remove it"
        )
