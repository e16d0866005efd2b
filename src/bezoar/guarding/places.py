"""Where a guard may write: its own folder, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from bezoar.data import ImageSource
from bezoar.errors import InputError, StorageError
from bezoar.guarding.ledger import FILE


def check_place(folder: Path, source: ImageSource) -> None:
    """Check that a folder is new, or holds a guard of this very set.

    Args:
        folder: Of the run.
        source: The set.

    Raises:
        InputError: If the folder lies in the set.
        StorageError: If it holds something else.
    """
    place = Path(source.spec)
    if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
        raise InputError(
            f"expected a place outside the set for the run, got {str(folder)!r} in "
            f"{source.spec!r}; choose another"
        )
    if not folder.exists() or (folder / FILE).exists():
        return
    if not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir()):
        raise StorageError(
            f"expected a new folder or that of an earlier guard, got {str(folder)!r}, "
            "where something else is; choose another --out"
        )
