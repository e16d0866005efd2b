"""Measurements that a claim may rest on: JSON lines that are only ever added to.

A line in ``docs/records`` says what was measured, on which machine, with which
versions and at which commit. The tables of the documentation are made from these
lines, so that no figure stands there that nobody measured.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bezoar.bench.machine import Machine, commit, machine, versions
from bezoar.errors import InputError, StorageError

__all__ = [
    "Claim",
    "Machine",
    "RecipeRun",
    "Record",
    "append",
    "commit",
    "compare",
    "machine",
    "read",
    "versions",
]

MIN_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Record:
    """One comparison of two ways to do the same, measured in one run.

    Attributes:
        what: What was measured, one phrase; the newest record of a name counts.
        before: Mean of the runs of the plain or older way, in ``unit``.
        after: Mean of the runs of the way that is claimed, in ``unit``.
        unit: Such as "images/s", "s" or "MiB".
        ratio: How many times better: after / before for rates, before / after for
            costs.
        n: Runs of each side that were counted.
        mean: Mean of the ratios, run by run.
        spread: Standard deviation of these ratios.
        warmup: Runs of each side before the clock counted.
        equality: "bitwise", or the bound on the difference of the results and the
            test that keeps it.
        forwards_per_image: Forward-equivalents per image of either side, by name;
            empty where nothing is forwarded.
        machine: What it ran on.
        versions: Of the packages that the figures depend on.
        commit: Of the code.
    """

    what: str
    before: float
    after: float
    unit: str
    ratio: float
    n: int
    mean: float
    spread: float
    warmup: int
    equality: str
    forwards_per_image: Mapping[str, float] = field(default_factory=dict)
    machine: Machine = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)


def compare(
    what: str,
    *,
    before: Sequence[float],
    after: Sequence[float],
    unit: str,
    higher_is_better: bool,
    warmup: int,
    equality: str,
    forwards_per_image: Mapping[str, float] | None = None,
) -> Record:
    """Make the record of runs that took turns.

    Args:
        what: What was measured, one phrase.
        before: Figures of the plain way, one per run; all above 0.
        after: Figures of the way that is claimed; the i-th ran next to the i-th of
            ``before``, so that a machine that slows down slows both.
        unit: Unit of the figures.
        higher_is_better: True for rates, False for costs such as seconds.
        warmup: Runs of each side that were not counted.
        equality: "bitwise", or the bound and the test that keeps it.
        forwards_per_image: Forward-equivalents of each side, by name.

    Returns:
        The record, with this machine, these versions and this commit.

    Raises:
        InputError: If there are fewer than five runs, the sides differ in number, or
            a figure is not above 0.

    Example:
        >>> record = compare(
        ...     "sum of squares",
        ...     before=[4.0, 4.0, 4.0, 4.0, 4.0],
        ...     after=[2.0, 2.0, 2.0, 2.0, 1.0],
        ...     unit="s",
        ...     higher_is_better=False,
        ...     warmup=1,
        ...     equality="bitwise",
        ... )
        >>> round(record.ratio, 2), record.mean, round(record.spread, 2)
        (2.22, 2.4, 0.89)
    """
    if len(before) != len(after) or len(before) < MIN_RUNS:
        raise InputError(
            f"expected at least {MIN_RUNS} runs of each side, as many of one as of "
            f"the other, got {len(before)} and {len(after)}; measure in turns"
        )
    if not all(math.isfinite(x) and x > 0 for x in [*before, *after]):
        raise InputError(
            "expected finite figures above 0, got "
            f"{sorted([*before, *after])}; a run that "
            "measured nothing is no run"
        )
    old, new = statistics.fmean(before), statistics.fmean(after)
    pairs = zip(before, after, strict=True)
    ratios = [a / b if higher_is_better else b / a for b, a in pairs]
    return Record(
        what=what,
        before=old,
        after=new,
        unit=unit,
        ratio=new / old if higher_is_better else old / new,
        n=len(before),
        mean=statistics.fmean(ratios),
        spread=statistics.stdev(ratios),
        warmup=warmup,
        equality=equality,
        forwards_per_image=forwards_per_image or {},
    )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One figure of a recipe and the gate it must pass.

    Attributes:
        name: What the figure is.
        value: The figure; None where nothing came out.
        gate: The value it is held against, or the condition in words.
        passed: Whether it passed.
    """

    name: str
    value: float | str | None
    gate: float | str
    passed: bool

    @property
    def held(self) -> bool:
        """Whether it passed, and is not something wanted that was missed."""
        return self.passed and not str(self.gate).endswith(": missed")


@dataclass(frozen=True, kw_only=True)
class RecipeRun:
    """One run of a recipe.

    Attributes:
        recipe: Its name.
        seconds: Wall-clock time of the whole.
        claims: What it claims, and whether that held.
        machine: What it ran on.
        versions: Of the packages that the figures depend on.
        commit: Of the code.
    """

    recipe: str
    seconds: float
    claims: tuple[Claim, ...]
    machine: Machine = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=commit)


def append(record: Record | RecipeRun, path: Path) -> None:
    """Add one line to a file of records; the lines before it stay as they are.

    Args:
        record: What was measured.
        path: A file in JSON lines; it and its folder are made if missing.

    Raises:
        InputError: If a figure is not a finite number.
        StorageError: If the file cannot be written.
    """
    try:
        line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"expected finite figures, got {record}; mend what measured them"
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise StorageError(
            f"expected to add a line to {str(path)!r}, got "
            f"{error.strerror or error}; choose another place"
        ) from error


def read(path: Path) -> tuple[Record | RecipeRun, ...]:
    """Return the records of a file, oldest first.

    Args:
        path: A file in JSON lines, as ``append`` writes it.

    Returns:
        Records of comparisons and of recipes, as they come in the file.

    Raises:
        StorageError: If the file cannot be read or a line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StorageError(
            f"expected records in {str(path)!r}, got {error.strerror or error}; "
            "measure first"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_parse(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(
                f"expected a record in line {number} of {str(path)!r}, got {error}; "
                "take the line out or mend it"
            ) from error
    return tuple(found)


def _parse(row: dict[str, Any]) -> Record | RecipeRun:
    found = row.pop("machine")
    found = Machine(**{**found, "features": tuple(found["features"])})
    if "recipe" in row:
        claims = tuple(Claim(**claim) for claim in row.pop("claims"))
        return RecipeRun(**row, claims=claims, machine=found)
    return Record(**row, machine=found)
