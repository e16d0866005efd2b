"""What the verbs print: plain text for people, one JSON object for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence


def say(text: str) -> None:
    """Write text to stdout; a reader who has gone is no error.

    Args:
        text: What to write; a line end is added.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Send what is still to be written to stdout nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def say_json(result: Mapping[str, object]) -> None:
    """Write one JSON object to stdout.

    Args:
        result: Plain values without NaN.
    """
    say(json.dumps(result, indent=2, allow_nan=False))


def shown(name: str) -> str:
    r"""Return a name as a terminal may see it.

    Args:
        name: A file's name from data that nobody vouches for.

    Returns:
        The name; what would steer the terminal is written as an escape.

    Example:
        >>> shown("cat/\x1b[2J.png")
        'cat/\\x1b[2J.png'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def percent(share: float) -> str:
    """Return a share in percent.

    Args:
        share: From 0 to 1.

    Returns:
        A text such as "4.6 %".
    """
    return f"{100 * share:.1f} %"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values as aligned lines.

    Args:
        rows: Names and values; rows with an empty value are left out.

    Returns:
        The lines.

    Example:
        >>> print(facts([("images", "7"), ("note", ""), ("flagged", "2")]))
        images   7
        flagged  2
    """
    filled = [(name, value) for name, value in rows if value]
    width = max(len(name) for name, _ in filled) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in filled)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns.

    Args:
        header: Names of the columns.
        rows: Cells; the last column may be of any length.

    Returns:
        The lines.

    Example:
        >>> print(table(["rank", "image"], [["1", "a.png"], ["10", "b.png"]]))
        rank  image
        1     a.png
        10    b.png
    """
    every = [header, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in every
    )
    return "\n".join(line.rstrip() for line in lines)
