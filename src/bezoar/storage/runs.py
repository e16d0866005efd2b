"""What a run was, for people and machines; and one run at a time on a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from bezoar.errors import StorageError
from bezoar.storage.plain import write_json


def write_run(
    folder: Path,
    *,
    command: str,
    settings: Mapping[str, object],
    seed: int,
    versions: Mapping[str, str],
    fingerprints: Mapping[str, str],
    timings: Mapping[str, float],
    status: str,
) -> None:
    """Write ``run.json``: enough to know a run again and to repeat it.

    Args:
        folder: Where to; made if it is missing.
        command: The command as it was typed, or the name of the function.
        settings: Fields of the method and options of the command.
        seed: The seed given.
        versions: Of the packages that the numbers depend on.
        fingerprints: Digests of model and data, by name.
        timings: Seconds, by stage.
        status: "running", "done" or "failed".
    """
    write_json(
        folder / "run.json",
        {
            "format": 1,
            "status": status,
            "command": command,
            "settings": settings,
            "seed": seed,
            "versions": versions,
            "fingerprints": fingerprints,
            "timings": timings,
        },
    )


class RunLock:
    """Keeps a second run out of a folder; ends with the process, even a killed one.

    Attributes:
        folder: The folder to lock; made if it is missing.
        name: The file to lock in it; locks of different names do not meet.

    Example:
        >>> from tempfile import mkdtemp
        >>> with RunLock(Path(mkdtemp())) as lock:
        ...     lock.path.name
        '.lock'
    """

    def __init__(self, folder: Path, *, name: str = ".lock") -> None:
        self.folder = folder
        self.name = name
        self._file: IO[bytes] | None = None

    @property
    def path(self) -> Path:
        """The file that is locked; it stays behind, empty of meaning."""
        return self.folder / self.name

    def __enter__(self) -> RunLock:
        """Take the lock.

        Returns:
            The lock.

        Raises:
            StorageError: If another run holds it or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # No buffer: what a full disk did not take would be written again.
            file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise StorageError(self._refusal(error.strerror or str(error))) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except OSError as error:
            with file:
                file.seek(0)
                holder = file.read(20).decode(errors="replace") or "unknown"
            if isinstance(error, BlockingIOError):
                raise StorageError(self._refusal(f"one, process {holder}")) from error
            raise StorageError(self._refusal(error.strerror or str(error))) from error
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()  # frees the lock; removing the file would be a race
            self._file = None

    def _refusal(self, found: str) -> str:
        return (
            f"expected no other run on {str(self.folder)!r} and a folder to write to, "
            f"got {found}; wait for it or choose another --out"
        )
