"""The page: one file that asks for nothing, made from a report alone.

Names of files, classes and captions are text of whoever made the data. They are
escaped where they stand as text, what would steer a reader's eye (marks of direction,
control characters) is shown as an escape, and the data that the script reads is ASCII
without ``<``, ``>`` and ``&``. A content security policy in the page allows the one
script and the one style sheet in it, by their hashes, and pictures out of the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bezoar.errors import StorageError
from bezoar.files import atomic
from bezoar.report.histogram import drawn
from bezoar.report.schema import check_report
from bezoar.report.summary import Report
from bezoar.storage import read_object

PAGE = "report.html"
_NONE = "\u2013"  # a dash, for what is not known
_HERE = Path(__file__).parent


def write_page(folder: Path) -> Path:
    """Make the page of a run from its ``report.json`` alone.

    Args:
        folder: The folder of the run.

    Returns:
        The page, ``report.html`` in that folder. A ``StorageError`` follows a folder
        without a report that can be read.
    """
    page = folder / PAGE
    content = render(read_report(folder)).encode()
    with atomic(page) as temporary:
        temporary.write_bytes(content)
    return page


def read_report(folder: Path) -> Report:
    """Read the report of a run.

    Args:
        folder: The folder of the run.

    Returns:
        The report; an ``InputError`` follows one that does not fit the schema.

    Raises:
        StorageError: If there is none.
    """
    found = read_object(folder / "report.json").get("report")
    if found is None:
        raise StorageError(
            f"expected a report for people in {str(folder / 'report.json')!r}, got "
            "figures alone; run the command that wrote it again"
        )
    return check_report(found)


def render(report: Report) -> str:
    """Return the page of a report.

    Args:
        report: Plain values that follow the schema.

    Returns:
        HTML; it makes no request to anywhere.
    """
    script, style = _text("page.js"), _text("page.css")
    page: str = _template().render(
        report=report,
        tone=report["verdict"]["tone"],
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
    )
    return page


def shown(text: object) -> str:
    r"""Return a text as a reader may see it.

    Args:
        text: Of whoever made the data.

    Returns:
        The text; characters without a shape of their own are written as escapes.

    Example:
        >>> shown("cat\u202egpj.exe")
        'cat\\u{202e}gpj.exe'
    """
    return "".join(
        f"\\u{{{ord(c):x}}}"
        if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")
        else c
        for c in str(text)
    )


def embedded(value: object) -> Markup:
    r"""Return values as JSON that can stand within a script element.

    Args:
        value: Plain values.

    Returns:
        ASCII without ``<``, ``>`` and ``&``.

    Example:
        >>> print(embedded("</script>"))
        "\u003c/script\u003e"
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # no sign is left that HTML knows


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "embedded": embedded,
        "drawn": drawn,
        "number": _number,
        "measure": _measure,
        "settings": _flat,
    }
    return environment.from_string(_text("page.html"))


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return _NONE
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _measure(value: float | None, unit: str) -> str:
    if value is None:
        return _NONE
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.4g} {unit}".strip()


def _flat(settings: object, name: str = "") -> list[tuple[str, str]]:
    """Return nested settings as names with dots and values."""
    if not isinstance(settings, dict):
        return [(name, _number(settings))]
    rows = []
    for key, value in settings.items():
        rows += _flat(value, f"{name}.{key}" if name else str(key))
    return rows
