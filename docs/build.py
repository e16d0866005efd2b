"""Writes the parts of the documentation that are made, and checks its links.

Tables come from ``docs/records``, the command pages from ``bezoar --help``. With
``--check`` nothing is written, and the exit code is 1 if a page is out of date or a
link leads nowhere.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from bezoar.bench.costs import fill_costs
from bezoar.bench.records import read
from bezoar.bench.tables import Records, fill

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE = Path("docs/cli.md")
_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_CALL = "import sys; sys.argv[0] = 'bezoar'; from bezoar.cli.main import main; "


def pages(root: Path) -> list[Path]:
    """Return the Markdown files of the project, relative to its root."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    return sorted(page.relative_to(root) for page in found)


def tables(root: Path) -> dict[Path, str]:
    """Return every page that has a table as it ought to be."""

    def records(name: str) -> Records:
        return read(root / "docs" / "records" / f"{name}.jsonl")

    wanted = {}
    for page in pages(root):
        text = (root / page).read_text(encoding="utf-8")
        if page.name == "README.md" or page.parts[0] == "docs":
            wanted[page] = fill_costs(fill(text, records), records)
    return wanted


def command_page() -> str:
    """Return the page of the commands: what ``--help`` prints, verb by verb."""
    verbs = import_module("bezoar.cli.main").VERBS
    calls: list[list[str]] = [[], *([verb] for verb in verbs)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        helps = list(pool.map(_help, calls))
    parts = ["# Commands\n\nMade from `--help` by `make docs`; do not edit."]
    for call, text in zip(calls, helps, strict=True):
        name = " ".join(["bezoar", *call])
        parts.append(f"## {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _help(call: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"{_CALL}sys.exit(main())", *call, "--help"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "COLUMNS": "88",
            "NO_COLOR": "1",
            "TERM": "dumb",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bezoar {' '.join(call)} --help failed: {done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def has_commands() -> bool:
    """Return whether there is a command line to describe."""
    return find_spec("bezoar.cli") is not None and bool(find_spec("bezoar.cli.main"))


def broken_links(root: Path) -> Iterator[str]:
    """Yield a sentence for each relative link that leads nowhere."""
    for page in pages(root):
        text = _prose(root / page)
        for target in _LINK.findall(text):
            if re.match(r"[a-z]+:", target):
                continue  # the web is not asked: the checks work without a network
            name, _, anchor = target.partition("#")
            place = (root / page).parent / name if name else root / page
            if not place.exists():
                yield f"{page}: expected a file at {target!r}, got none"
            elif anchor and anchor not in _anchors(place):
                yield f"{page}: expected a heading for {target!r}, got none"


def _prose(page: Path) -> str:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return _SPAN.sub("", text)


def _anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with ``--check`` only compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    wanted = tables(ROOT)
    if has_commands():
        wanted[CLI_PAGE] = command_page()
    faults = []
    for page, text in wanted.items():
        path = ROOT / page
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            faults.append(f"{page}: out of date; run `make docs` and commit it")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {page}")
    faults += broken_links(ROOT)
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
