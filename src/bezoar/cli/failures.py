"""Whatever goes wrong becomes one sentence and an exit code; no torch is needed."""

from __future__ import annotations

import errno

from bezoar.errors import BezoarError, EmptyError

DONE, FOUND, ERROR, NOTHING = 0, 1, 2, 3
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

_PLACES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EACCES: "choose a place that you may use, or change its permissions",
    errno.EPERM: "choose a place that you may use, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def explain(error: BaseException) -> tuple[int, str]:
    """Return what to tell about an error.

    Args:
        error: What was raised.

    Returns:
        The exit code and one line for a reader who does not know the code.

    Example:
        >>> explain(EmptyError("expected images, found none; give some"))
        (3, 'expected images, found none; give some')
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; the same command goes on where this stopped"
    if isinstance(error, BezoarError):
        return NOTHING if isinstance(error, EmptyError) else ERROR, _line(error)
    if _is_memory(error):
        return ERROR, (
            f"expected enough memory, got too little ({_line(error)}); lower "
            "--batch-size, --block-size or --image-size"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f" at {error.filename!r}" if error.filename else ""
        advice = _PLACES.get(error.errno, "check the paths, or see more with --debug")
        return ERROR, (
            f"expected to read and write files, got {_line(error.strerror or error)}"
            f"{where}; {advice}"
        )
    return ERROR, (
        f"expected no such fault, got {type(error).__name__} ({_line(error)}); this is "
        "a bug: run again with --debug and report what it prints"
    )


def _is_memory(error: BaseException) -> bool:
    # torch's own kinds by their name and text: torch may not be loaded.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def _line(error: object) -> str:
    text = " ".join(str(error).split())
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return plain or type(error).__name__
