"""JSON files: strict when written, bounded when read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import NoReturn

from bezoar.errors import InputError, StorageError
from bezoar.files import atomic

MAX_BYTES = 1 << 28  # a report of a million flagged images has about a quarter of this
MAX_DEPTH = 64  # ours are 6 deep; a file of brackets must not exhaust the stack


def write_json(path: Path, obj: object) -> None:
    """Write plain values to a JSON file, whole or not at all.

    Args:
        path: The file to write.
        obj: Mappings with text keys, sequences, dataclasses, texts, numbers, booleans,
            paths and None; anything else is an ``InputError``. NaN and infinite
            numbers, which JSON lacks, become null.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "run.json"
        >>> write_json(path, {"lr": 0.1, "loss": float("nan")})
        >>> read_json(path)
        {'lr': 0.1, 'loss': None}
    """
    value = _plain(obj, "the top")
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        content = text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode: escape it
        content = json.dumps(value, indent=2, allow_nan=False).encode()
    with atomic(path) as temporary:
        temporary.write_bytes(content + b"\n")


def as_plain(obj: object) -> object:
    """Return what JSON will hold of values, as it will be read back.

    Args:
        obj: As for ``write_json``.

    Returns:
        Dicts, lists, texts, numbers, booleans and None; an ``InputError`` follows
        anything that has no place among these.

    Example:
        >>> as_plain({"size": (3, 4), "loss": float("nan")})
        {'size': [3, 4], 'loss': None}
    """
    return _plain(obj, "the top")


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> object:
    """Read a JSON file that may be damaged, foreign or hostile.

    Args:
        path: The file to read.
        max_bytes: Longest file to accept.

    Returns:
        What the file holds: dicts, lists, texts, numbers, booleans and None.

    Raises:
        StorageError: If the file cannot be read, is too long or too deep, or is not
            strict JSON in UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise StorageError(_refusal(path, error.strerror or str(error))) from error
    if len(content) > max_bytes:
        raise StorageError(_refusal(path, f"more than {max_bytes} bytes"))
    try:
        value: object = json.loads(
            content.decode(), parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise StorageError(_refusal(path, "brackets nested too deep")) from error
    except ValueError as error:
        raise StorageError(_refusal(path, f"{error}")) from error
    if _is_deeper(value, MAX_DEPTH):
        raise StorageError(_refusal(path, f"more than {MAX_DEPTH} levels of brackets"))
    return value


def read_object(path: Path) -> dict[str, object]:
    """Read a JSON file whose top is an object.

    Args:
        path: The file to read.

    Returns:
        The object, by key.

    Raises:
        StorageError: If the file cannot be read, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise StorageError(
            _refusal(path, f"a {type(value).__name__} at the top, not an object")
        )
    return value


def _plain(value: object, place: str) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), place)
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: _plain(v, repr(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, place) for v in value]
    raise InputError(
        "expected texts, numbers, lists and mappings with text keys, got a "
        f"{type(value).__name__} at {place}; convert it first"
    )


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]  # level by level, so that no depth exhausts the stack
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return len(level) > 0


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refusal(path: Path, found: str) -> str:
    return (
        f"expected JSON in {str(path)!r}, got {found}; restore the file or make it anew"
    )
