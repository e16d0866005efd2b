"""The schema of a report, and a check of plain values against it.

``schema.json`` beside this file is a JSON Schema (draft 2020-12) that any validator
reads. The check here knows the keywords used in it, and no others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from bezoar.errors import InputError

Rule: TypeAlias = Mapping[str, Any]
Place: TypeAlias = tuple[str | int, ...]

VERSION = 1

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_PLAIN = {"string": str, "integer": int, "boolean": bool, "null": type(None)}


@cache
def schema() -> Rule:
    """Return the schema of a report.

    Returns:
        The content of ``schema.json``.

    Example:
        >>> schema()["title"]
        'bezoar report, version 1'
    """
    text = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    rules: Rule = json.loads(text)
    return rules


def check_report(value: object) -> dict[str, Any]:
    """Check that a value is a report as the schema has it.

    What the schema cannot say is checked too: a gallery's columns and a histogram's
    counts are of one length, and details name rows that are there.

    Args:
        value: Plain values, such as a JSON file holds.

    Returns:
        The same value.

    Raises:
        InputError: If it is not; the sentence names the place.
    """
    if isinstance(value, dict) and value.get("version", VERSION) != VERSION:
        raise InputError(
            f"expected a report of version {VERSION}, got {value['version']!r}; make "
            "the page with the version of bezoar that wrote it"
        )
    _check(value, schema(), ())
    assert isinstance(value, dict)
    for number, section in enumerate(value["sections"]):
        _LENGTHS.get(section["type"], _nothing)(section, ("sections", number))
    return value


def _check(value: object, rule: Rule, place: Place) -> None:
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]]
    if "oneOf" in rule:
        rule = _branch(value, rule["oneOf"], place)
    if "anyOf" in rule:
        rule = rule["anyOf"][-1 if value is None else 0]
        return _check(value, rule, place)
    for keyword, check in _CHECKS.items():
        if keyword in rule:
            check(value, rule, place)
    return None


def _branch(value: object, branches: list[Rule], place: Place) -> Rule:
    rules = [schema()["$defs"][b["$ref"].rpartition("/")[2]] for b in branches]
    by_type = {rule["properties"]["type"]["const"]: rule for rule in rules}
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in by_type:
        raise _refusal(place, f"a section of a type such as {', '.join(by_type)}", kind)
    found: Rule = by_type[kind]
    return found


def _check_type(value: object, rule: Rule, place: Place) -> None:
    wanted = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    if isinstance(value, bool):
        fits = "boolean" in wanted
    else:
        fits = any(isinstance(value, _TYPES[name]) for name in wanted)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise _refusal(place, " or ".join(wanted), value)


def _check_values(value: object, rule: Rule, place: Place) -> None:
    allowed = rule["enum"] if "enum" in rule else [rule["const"]]
    if value not in allowed:
        raise _refusal(place, " or ".join(map(repr, allowed)), value)


def _check_minimum(value: object, rule: Rule, place: Place) -> None:
    if isinstance(value, (int, float)) and value < rule["minimum"]:
        raise _refusal(place, f"{rule['minimum']} or more", value)


def _check_pattern(value: object, rule: Rule, place: Place) -> None:
    if isinstance(value, str) and re.search(rule["pattern"], value) is None:
        raise _refusal(place, f"a text like {rule['pattern']}", value)


def _check_size(value: object, rule: Rule, place: Place) -> None:
    if not isinstance(value, list):
        return
    least, most = rule.get("minItems", 0), rule.get("maxItems", math.inf)
    if not least <= len(value) <= most:
        raise _refusal(place, f"{least} to {most} items", len(value))


def _check_items(value: object, rule: Rule, place: Place) -> None:
    if isinstance(value, list) and not _all_fit(value, rule["items"]):
        for number, item in enumerate(value):
            _check(item, rule["items"], (*place, number))


def _all_fit(values: list[object], rule: Rule) -> bool:
    # Columns of thousands of plain values; whatever is not plain is checked one by one.
    if not rule.keys() <= {"type", "description"}:
        return False
    wanted = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    plain = {_PLAIN[name] for name in wanted if name in _PLAIN}
    return {type(value) for value in values} <= plain


def _check_required(value: object, rule: Rule, place: Place) -> None:
    if isinstance(value, dict) and (missing := set(rule["required"]) - value.keys()):
        raise _refusal(place, f"the key {min(missing)!r}", sorted(value))


def _check_properties(value: object, rule: Rule, place: Place) -> None:
    if not isinstance(value, dict):
        return
    known, more = rule.get("properties", {}), rule.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            _check(item, known[key], (*place, key))
        elif more is False:
            raise _refusal(place, f"only the keys {', '.join(known)}", key)
        elif isinstance(more, Mapping):
            _check(item, more, (*place, key))


_CHECKS: dict[str, Callable[[object, Rule, Place], None]] = {
    "type": _check_type,
    "enum": _check_values,
    "const": _check_values,
    "minimum": _check_minimum,
    "pattern": _check_pattern,
    "minItems": _check_size,
    "maxItems": _check_size,
    "items": _check_items,
    "required": _check_required,
    "properties": _check_properties,
    "additionalProperties": _check_properties,
}


def _check_gallery(section: Mapping[str, Any], place: Place) -> None:
    columns = section["columns"]
    rows = len(columns["id"])
    lengths = {name: len(column) for name, column in columns.items()}
    if set(lengths.values()) != {rows} or len(set(columns["id"])) < rows:
        raise _refusal(place, "columns of one length and each id once", lengths)
    if len(section["thumbnails"]) > rows or section["total"] < rows:
        raise _refusal(place, f"at most {rows} thumbnails and that many images", rows)
    for detail in section["details"]:
        named = (detail["row"], *detail.get("neighbours", ()))
        if max(named) >= rows:
            raise _refusal(place, f"details of the {rows} rows", max(named))


def _check_histogram(section: Mapping[str, Any], place: Place) -> None:
    bins = len(section["edges"]) - 1
    lengths = (len(section["counts"]), len(section["flagged"]))
    if set(lengths) != {bins} or section["edges"] != sorted(section["edges"]):
        raise _refusal(place, f"rising edges, and counts for {bins} bins", lengths)


def _check_table(section: Mapping[str, Any], place: Place) -> None:
    widths = {len(row) for row in section["rows"]}
    if not widths <= {len(section["columns"])}:
        raise _refusal(place, f"rows of {len(section['columns'])} cells", widths)


def _check_pictures(section: Mapping[str, Any], place: Place) -> None:
    widths = {len(row["pictures"]) for row in section["rows"]}
    if not widths <= {len(section["names"])}:
        raise _refusal(place, f"{len(section['names'])} pictures in a row", widths)


def _nothing(_section: Mapping[str, Any], _place: Place) -> None:
    pass


_LENGTHS: dict[str, Callable[[Mapping[str, Any], Place], None]] = {
    "gallery": _check_gallery,
    "histogram": _check_histogram,
    "pictures": _check_pictures,
    "table": _check_table,
}


def _refusal(place: Place, wanted: str, found: object) -> InputError:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place)
    return InputError(
        f"expected {wanted} at report{where}, got {ascii(found)[:80]}; correct it or "
        "make the report anew"
    )
