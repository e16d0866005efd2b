"""The steps of a run: done once, skipped on request, and taken up after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from bezoar.errors import BezoarError, EmptyError, StorageError
from bezoar.storage import read_object, write_json

Status = Literal["done", "restored", "skipped", "cannot run", "failed"]
T = TypeVar("T")

FILE, ON_REQUEST = "steps.json", "on request"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of a step.

    Attributes:
        name: Of the step.
        status: "done" now, "restored" from an earlier run, "skipped" (on request, or
            not needed), "cannot run" for a reason, or "failed".
        reason: What came of it, or why it did not run.
        seconds: How long it took when it was done.
        key: Digest of all that its result depends on.
    """

    name: str
    status: Status
    reason: str
    seconds: float | None = None
    key: str = ""


class Ledger:
    """Does the steps of a run, and keeps book in the folder of the run.

    Args:
        folder: Of the run; made if it is missing.
        skip: Steps that are not to be done.
    """

    def __init__(self, folder: Path, *, skip: Collection[str] = ()) -> None:
        self.folder = folder
        self.skip = frozenset(skip)
        self.steps: list[Step] = []
        self.earlier = _read(folder / FILE)
        self._write()  # whose folder this is, should the first step be cut short

    def do(
        self,
        name: str,
        *,
        key: str,
        make: Callable[[], tuple[T, str]],
        load: Callable[[], T] | None = None,
    ) -> T | None:
        """Do a step, or take up what an earlier run made.

        An error that was raised on purpose ends the step, and not the run; that there
        is nothing to scan ends both.

        Args:
            name: The step.
            key: Digest of all that its result depends on; only a result of the same
                key is taken up.
            make: Does it; returns the result and what came of it in words.
            load: Reads the result of an earlier run; None does the step again.

        Returns:
            The result; None where there is none.

        Raises:
            EmptyError: If there is nothing to scan.
        """
        if name in self.skip:
            self.pass_over(name, "skipped", ON_REQUEST)
            return None
        before = self.earlier.get(name)
        if load is not None and before is not None and before.key == key:
            try:
                found = load()
            except StorageError:
                pass  # what was kept is damaged or gone: it is made again
            else:
                self._add(
                    name, "restored", before.reason, seconds=before.seconds, key=key
                )
                return found
        if self.earlier.pop(name, None) is not None:
            self._write()  # from here on its files may be half old, half new
        start = time.perf_counter()
        try:
            made, words = make()
        except EmptyError:
            raise
        except BezoarError as error:
            spent = round(time.perf_counter() - start, 3)
            self._add(name, "failed", str(error), seconds=spent)
            return None
        self._add(
            name, "done", words, seconds=round(time.perf_counter() - start, 3), key=key
        )
        return made

    def pass_over(
        self, name: str, status: Literal["skipped", "cannot run"], reason: str
    ) -> None:
        """Note that a step is not done.

        Args:
            name: The step.
            status: "skipped" or "cannot run".
            reason: Why.
        """
        if name in self.skip:
            status, reason = "skipped", ON_REQUEST
        self._add(name, status, reason)

    def status_of(self, name: str) -> Status | None:
        """Return what came of a step.

        Args:
            name: The step.

        Returns:
            Its status; None if it was not reached.
        """
        return next((s.status for s in self.steps if s.name == name), None)

    def _add(
        self,
        name: str,
        status: Status,
        reason: str,
        *,
        seconds: float | None = None,
        key: str = "",
    ) -> None:
        self.steps.append(
            Step(name=name, status=status, reason=reason, seconds=seconds, key=key)
        )
        self._write()

    def _write(self) -> None:
        # What an earlier run finished and this one has not come to is kept.
        now = {step.name for step in self.steps}
        later = [step for name, step in self.earlier.items() if name not in now]
        rows = [*self.steps, *later]
        write_json(self.folder / FILE, {"format": _FORMAT, "steps": rows})


def _read(path: Path) -> dict[str, Step]:
    if not path.exists():
        return {}
    try:
        rows = read_object(path)["steps"]
        assert isinstance(rows, list)
        steps = [Step(**row) for row in rows]
    except (KeyError, TypeError, AssertionError) as error:
        raise StorageError(
            f"expected the steps of a guard in {str(path)!r}, got something else; "
            "choose another --out or remove the file"
        ) from error
    is_kept = {status: status in ("done", "restored") for status in get_args(Status)}
    return {step.name: step for step in steps if is_kept.get(step.status, False)}
