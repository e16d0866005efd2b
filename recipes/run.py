"""Runs recipes, each in a process of its own, and gathers what they claim.

A recipe is a script that takes ``--json``, prints one object
``{"recipe", "seconds", "claims": [{"name", "value", "gate", "passed"}]}`` and exits
with 0 if all claims held, 3 if it lacks its data, anything else if it failed. One
that says ``LONG = True`` at its top is left out with ``--short``, and may take four
times as long as the others.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bezoar.bench.records import Claim, RecipeRun, append
from bezoar.files import atomic

HERE = Path(__file__).resolve().parent
NO_DATA = 3
LONGER = 4  # times the limit, for a recipe that says that it is long


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a recipe went.

    Attributes:
        recipe: The name of its file.
        status: "passed", "failed" or "skipped".
        seconds: Wall-clock time of its process.
        claims: What it printed; empty where it printed nothing that can be read.
        reason: Why it failed or was skipped; empty when it passed.
    """

    recipe: str
    status: str
    seconds: float
    claims: tuple[Claim, ...] = ()
    reason: str = ""


def is_long(path: Path) -> bool:
    """Return whether a recipe says ``LONG = True``; it is read, not run."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        if "LONG" in names:
            return node.value.value is True
    return False


def run(path: Path, *, limit: float) -> Outcome:
    """Run one recipe for at most ``limit`` seconds and judge what it printed."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(path), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its own workers are ended with it
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        reason = f"expected an end within {limit:g} s, got none"
        return Outcome(recipe=path.stem, status="failed", seconds=limit, reason=reason)
    seconds = time.monotonic() - begin
    last = err.strip().splitlines()[-1:] or ["nothing on stderr"]
    if process.returncode == NO_DATA:
        return Outcome(
            recipe=path.stem, status="skipped", seconds=seconds, reason=last[0]
        )
    return judge(path.stem, out, code=process.returncode, last=last[0], seconds=seconds)


def judge(recipe: str, out: str, *, code: int, last: str, seconds: float) -> Outcome:
    """Return the outcome of a recipe from what it printed and how it ended."""
    try:
        printed = json.loads(out)
        claims = tuple(Claim(**claim) for claim in printed["claims"])
        named = printed["recipe"] == recipe and printed["seconds"] >= 0
    except (ValueError, TypeError, KeyError) as error:
        reason = f"expected one JSON object, got {error!r}, exit code {code}: {last}"
        return Outcome(recipe=recipe, status="failed", seconds=seconds, reason=reason)
    missed = [claim.name for claim in claims if claim.passed is not True]
    if not named:
        reason = f"expected recipe {recipe!r} and its seconds, got others"
    elif not claims:
        reason = "expected at least one claim, got none"
    elif missed:
        reason = f"expected every claim to hold, got misses: {', '.join(missed)}"
    elif code != 0:
        reason = f"expected exit code 0, got {code}: {last}"
    else:
        reason = ""
    status = "failed" if reason else "passed"
    return Outcome(
        recipe=recipe, status=status, seconds=seconds, claims=claims, reason=reason
    )


def show(outcome: Outcome) -> None:
    """Print one outcome and its claims."""
    print(f"{outcome.recipe}: {outcome.status} in {outcome.seconds:.0f} s", flush=True)
    for claim in outcome.claims:
        missed = "missed" if claim.passed is True else "MISSED"
        word = "held" if claim.held else missed
        print(f"  {word}: {claim.name} = {claim.value} (gate {claim.gate})", flush=True)
    if outcome.reason:
        print(f"  {outcome.reason}", flush=True)


def save(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write all outcomes as one JSON file."""
    rows = {"recipes": [asdict(outcome) for outcome in outcomes]}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def record(outcomes: Sequence[Outcome], path: Path) -> None:
    """Add what passed to a file of records."""
    for done in outcomes:
        if done.status == "passed":
            run = RecipeRun(
                recipe=done.recipe, seconds=done.seconds, claims=done.claims
            )
            append(run, path)


def choose(folder: Path, names: Sequence[str], *, short: bool) -> list[Path]:
    """Return the recipes of a folder that were asked for; all without names."""
    paths = sorted(folder.glob("*.py"))
    unknown = set(names) - {path.stem for path in paths}
    if unknown:
        raise SystemExit(f"expected recipes in {folder}, got {sorted(unknown)}")
    return [
        path
        for path in paths
        if (not names or path.stem in names) and not (short and is_long(path))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipes that were asked for; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="recipes to run; all of the folder")
    parser.add_argument("--folder", type=Path, default=HERE / "mini")
    parser.add_argument("--short", action="store_true", help="leave long ones out")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each")
    parser.add_argument("--out", type=Path, help="write all outcomes to this file")
    parser.add_argument("--record", type=Path, help="add what passed to these records")
    given = parser.parse_args(arguments)
    outcomes = []
    for path in choose(given.folder, given.names, short=given.short):
        limit = given.limit * (LONGER if is_long(path) else 1)
        outcomes.append(run(path, limit=limit))
        show(outcomes[-1])
    if given.out:
        save(outcomes, given.out)
    if given.record:
        record(outcomes, given.record)
    bad = [o for o in outcomes if o.status == "failed" or (_in_ci() and o.reason)]
    print(f"{len(outcomes)} recipes, {len(bad)} of them not as they should be")
    return 1 if bad else 0


def _in_ci() -> bool:
    """Return whether a skip counts as a failure, for it would hide a claim."""
    return bool(os.environ.get("CI"))


if __name__ == "__main__":
    sys.exit(main())
