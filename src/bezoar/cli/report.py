"""``bezoar report``: the page of a run made anew, and what other tools read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from bezoar.cli.failures import DONE
from bezoar.cli.options import parse
from bezoar.cli.text import say, say_json
from bezoar.files import atomic
from bezoar.report import (
    cleanlab,
    fiftyone,
    huggingface,
    read_report,
    sarif,
    write_page,
)
from bezoar.results import Detection
from bezoar.storage import load_detection, write_json, write_table

Export = Literal["sarif", "fiftyone", "cleanlab", "huggingface"]


def command(words: Sequence[str]) -> int:
    """Run ``bezoar report``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(report, "report", words)


def report(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    *,
    export: Annotated[
        Export | None,
        arg(
            metavar="NAME",
            help_behavior_hint="one of sarif, fiftyone, cleanlab, huggingface",
        ),
    ] = None,
    root: Annotated[str, arg(metavar="PATH")] = "",
    json: bool = False,
    debug: bool = False,
) -> int:
    """Make the page of a run anew, or write what was found for another tool.

    The page, report.html, is made from report.json alone. Exports are made from the
    scores of a run of "bezoar detect" and lie beside it: report.sarif for code-scanning
    pages, fiftyone.json for FiftyOne, cleanlab.parquet with the columns that cleanlab
    uses, huggingface.parquet for a Hugging Face data set. Exit codes: 0 done, 2 error.

    Args:
        run: Folder of the run.
        export: What to write instead of the page.
        root: For sarif and fiftyone, folder of the images as the other tool sees it; it
            comes before their names.
        json: Print one JSON object instead of text.
        debug: Show the traceback of an error.

    Returns:
        0.
    """
    del debug  # the caller looks at it
    folder = Path(run)
    if export is None:
        path = write_page(folder)
    else:
        path = folder / _NAMES[export]
        _WRITE[export](load_detection(folder), path, root)
    if json:
        say_json({"written": str(path), "verdict": read_report(folder)["verdict"]})
    else:
        say(f"wrote {path}")
    return DONE


def _write_sarif(found: Detection, path: Path, root: str) -> None:
    told = read_report(path.parent)["run"]["command"]
    write_json(path, sarif(found, root=root, command=told))


def _write_fiftyone(found: Detection, path: Path, root: str) -> None:
    write_json(path, fiftyone(found, root=root, name=path.resolve().parent.name))


def _write_cleanlab(found: Detection, path: Path, _root: str) -> None:
    write_table(path, cleanlab(found))


def _write_huggingface(found: Detection, path: Path, _root: str) -> None:
    with atomic(path) as temporary:
        huggingface(found).to_parquet(os.fspath(temporary))


_NAMES: dict[str, str] = {
    "sarif": "report.sarif",
    "fiftyone": "fiftyone.json",
    "cleanlab": "cleanlab.parquet",
    "huggingface": "huggingface.parquet",
}
_WRITE: dict[str, Callable[[Detection, Path, str], None]] = {
    "sarif": _write_sarif,
    "fiftyone": _write_fiftyone,
    "cleanlab": _write_cleanlab,
    "huggingface": _write_huggingface,
}
