"""Files that are whole or not there: what is written appears under its name at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bezoar.errors import StorageError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Lend a temporary file that takes the name ``path`` when the block ends well.

    Args:
        path: The file to write; its folder is made if it is missing.

    Yields:
        A temporary path beside it. After an error it is removed, and ``path`` is as
        it was before.

    Raises:
        StorageError: If the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise StorageError(_refusal(path, error)) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files for the owner only
        temporary.replace(path)
    except OSError as error:
        raise StorageError(_refusal(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _refusal(path: Path, error: OSError) -> str:
    return (
        f"expected to write {path.name!r} in {str(path.parent)!r}, got "
        f"{error.strerror or error}; choose another place or free some space"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
