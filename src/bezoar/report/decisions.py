"""What a person decided on the page, checked strictly before anything follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bezoar.errors import InputError
from bezoar.report.gallery import Decision
from bezoar.results import Detection
from bezoar.storage import read_object

MAX_BYTES = 64 << 20  # a million decisions on names of ordinary length
_KEYS = {"format", "version", "title", "data", "decisions"}
_DROPPED = "dropped by hand"


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Which images a person keeps or drops, whatever a detection says.

    Attributes:
        by_id: "keep" or "drop" by the id of an image.
        data: Fingerprint of the set that was looked at; empty if it is not known.
    """

    by_id: Mapping[str, Decision]
    data: str = ""

    def apply(self, found: Detection, *, data: str = "") -> Detection:
        """Return a detection with the decisions in place of its own.

        The verdict stays that of the detector.

        Args:
            found: The detection that the decisions are on.
            data: Fingerprint of its set, if it is known.

        Returns:
            The detection: what is kept is not flagged, what is dropped is.

        Raises:
            InputError: If the decisions are on another set, or on images that are not
                in this one.

        Example:
            >>> Decisions(by_id={"a.png": "keep"}).num_dropped
            0
        """
        if self.data and data and self.data != data:
            raise InputError(
                "expected decisions on this set, got some on another one; save them "
                "on the page of this run"
            )
        place = {id_: i for i, id_ in enumerate(found.ids)}
        if unknown := [id_ for id_ in self.by_id if id_ not in place]:
            raise InputError(
                f"expected decisions on images of this set, got {unknown[0]!r} and "
                f"{len(unknown) - 1:,} more that are not in it; save them on the page "
                "of this run"
            )
        flagged, reasons = found.flagged.clone(), list(found.reasons)
        for id_, choice in self.by_id.items():
            i = place[id_]
            if choice == "drop" and not flagged[i]:
                reasons[i] = _DROPPED
            elif choice == "keep":
                reasons[i] = ""
            flagged[i] = choice == "drop"
        return replace(found, flagged=flagged, reasons=tuple(reasons))

    @property
    def num_dropped(self) -> int:
        """How many images are to be dropped by hand."""
        return sum(choice == "drop" for choice in self.by_id.values())

    def remark(self) -> str:
        """Return what a reader should know of them.

        Returns:
            One sentence.
        """
        drops = self.num_dropped
        return (
            f"decisions of a person were applied: {drops:,} to drop, "
            f"{len(self.by_id) - drops:,} to keep; the verdict is the detector's own"
        )


def read_decisions(path: Path) -> Decisions:
    """Read the decisions that the page saved.

    Args:
        path: A file such as ``decisions.json``.

    Returns:
        The decisions. A ``StorageError`` follows a file that cannot be read.

    Raises:
        InputError: If the file holds anything else.
    """
    if path.exists() and path.stat().st_size > MAX_BYTES:
        raise InputError(_refusal(path, f"{path.stat().st_size:,} bytes"))
    found = read_object(path)
    if found.get("format") != "bezoar.decisions" or found.get("version") != 1:
        raise InputError(_refusal(path, _named(found)))
    if found.keys() != _KEYS:
        raise InputError(_refusal(path, f"the keys {', '.join(sorted(found))}"[:120]))
    if not isinstance(found["data"], str) or not isinstance(found["title"], str):
        raise InputError(_refusal(path, "a title or fingerprint that is no text"))
    decisions = found["decisions"]
    if not isinstance(decisions, dict):
        raise InputError(_refusal(path, "no table of decisions"))
    for id_, choice in decisions.items():
        if choice not in ("keep", "drop"):
            raise InputError(_refusal(path, f"{choice!r:.40} for {id_!r:.80}"))
    return Decisions(by_id=decisions, data=found["data"])


def _named(found: Mapping[str, Any]) -> str:
    return f"format {found.get('format')!r:.40}, version {found.get('version')!r:.20}"


def _refusal(path: Path, found: str) -> str:
    return (
        f"expected decisions that the page saved in {str(path)!r}, got {found}; save "
        "them on the page anew"
    )
