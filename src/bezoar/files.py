"""Files that are whole or not there: what is written appears under its name at once.

A run that is killed while it writes leaves a hidden folder beside the file, and the
next one that writes there removes it. A lock on the folder, which ends with the
process, tells what was left behind from what is in use.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from bezoar.errors import StorageError

PARTIAL = ".partial"
_NUMBER = re.compile(r"\(os error (\d+)\)")
_TRIES = 100  # two runs may clear and take one name in turns, not for ever


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Lend a temporary file that takes the name ``path`` when the block ends well.

    It lies in a hidden folder of its own, for writers of some formats make temporary
    files of theirs beside it.

    Args:
        path: The file to write; its folder is made if it is missing.

    Yields:
        An empty file. After an error it is removed, and ``path`` is as it was before.

    Raises:
        StorageError: If the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with workplace(path) as folder:
            temporary = folder / path.name
            temporary.touch()
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())  # some writers keep others from it
            temporary.replace(path)
    except StorageError:
        raise
    except (OSError, SafetensorError) as error:
        raise StorageError(_refusal(path, error)) from error


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Lend a hidden folder beside a place, clear of what killed runs left in it.

    Args:
        target: What is to be made; its folder has to be there.

    Yields:
        An empty folder on the same file system; it is removed at the end.
    """
    folder, handle = _taken(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def partial_name(name: str) -> str:
    """Return the name of the folder in which something is made.

    Args:
        name: Of what is to be made.

    Returns:
        A hidden name.
    """
    return f".{name}{PARTIAL}"


def _taken(target: Path) -> tuple[Path, int | None]:
    # One name for each target, so that leftovers are found without a search.
    folder = target.with_name(partial_name(target.name))
    for _ in range(_TRIES):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not _cleared(folder):
                break  # another run makes the same thing just now
            continue
        with suppress(OSError):
            handle = _locked(folder)
            if handle is not None:
                return folder, handle
    name = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
    return Path(name), None


def _cleared(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return True
    try:
        handle = _locked(folder)
    except OSError:  # in use, or on a system without locks
        return False
    shutil.rmtree(folder)
    if handle is not None:
        os.close(handle)
    return True


def _locked(folder: Path) -> int | None:
    # None where the folder was cleared away between its making and its locking.
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(folder)):
            return handle
    except FileNotFoundError:
        pass
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _refusal(path: Path, error: OSError | SafetensorError) -> str:
    found = error.strerror if isinstance(error, OSError) else None
    if number := _NUMBER.search(str(error)):  # what its writer makes of a full disk
        found = os.strerror(int(number[1]))
    found = found or str(error)
    return (
        f"expected to write {path.name!r} in {str(path.parent)!r}, got {found}; choose "
        "another place or free some space"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
