"""A new place for a set: it appears whole under its name, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bezoar.errors import InputError, StorageError
from bezoar.files import workplace


@contextmanager
def staged(out: Path, *, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """Lend a name in a temporary folder beside ``out``; it becomes ``out`` at the end.

    A place that is taken, or lies in a source, is an ``InputError``.

    Args:
        out: A place that is free: nothing, or an empty folder.
        sources: Files and folders that ``out`` must not be or lie in.

    Yields:
        A path at which to make a file or a folder. After an error nothing is left; a
        killed run leaves a hidden folder beside ``out``, which the next one removes.

    Raises:
        StorageError: If the place cannot be written, or is full.
    """
    _check_free(out, sources)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with workplace(out) as stage:
            yield stage / "new"
            if out.is_dir():
                out.rmdir()  # it is empty; some systems do not rename onto a folder
            (stage / "new").rename(out)
    except OSError as error:
        raise StorageError(
            f"expected to write {out.name!r} in {str(out.parent)!r}, got "
            f"{error.strerror or error}; choose another place or free some space"
        ) from error


def _check_free(out: Path, sources: Sequence[Path]) -> None:
    real = out.resolve()
    for source in sources:
        if real.is_relative_to(source.resolve()):
            raise InputError(
                f"expected a place outside the set that is read, got {str(out)!r}, "
                f"which is in {str(source)!r}; choose another"
            )
    try:
        taken = out.is_symlink() or (
            out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None)
        )
    except OSError as error:
        raise StorageError(
            f"expected a place to write to, got {str(out)!r} ({error.strerror}); "
            "choose another"
        ) from error
    if taken:
        raise InputError(
            f"expected a new or empty place to write to, got {str(out)!r}, where "
            "something is already; choose another or remove it"
        )
