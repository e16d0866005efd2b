"""Tables of the documentation, made from records: figures in, Markdown out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from bezoar.bench.records import Claim, RecipeRun, Record
from bezoar.errors import InputError

Records = Sequence[Record | RecipeRun]
EMPTY = "*Not measured yet.*"
_OPEN = "<!-- records:"
_BLOCK = re.compile(
    r"(?P<open><!-- records:(?P<file>[\w-]+)(?:/(?P<only>[\w-]+))?"
    r"(?P<brief>:brief)? -->\n)"
    r".*?(?P<close><!-- /records -->)",
    re.DOTALL,
)


def fill(text: str, records: Callable[[str], Records]) -> str:
    r"""Return a page with its tables made anew.

    A table stands between ``<!-- records:FILE -->`` and ``<!-- /records -->``, each
    on a line of its own; ``FILE/NAME`` takes only the recipe of that name, or if there
    is none the recipes or comparisons whose name begins so, and ``:brief`` behind
    either makes one row of a recipe.

    Args:
        text: The page in Markdown.
        records: Returns the records of a file, given its name without ending.

    Returns:
        The page; all outside the marks is as it was.

    Raises:
        InputError: If a mark is not closed.

    Example:
        >>> print(fill("<!-- records:bench -->\n<!-- /records -->", lambda _: ()))
        <!-- records:bench -->
        *Not measured yet.*
        <!-- /records -->
    """

    def block(match: re.Match[str]) -> str:
        chosen = _only(records(match["file"]), match["only"] or "")
        made = table(chosen, brief=bool(match["brief"]))
        return f"{match['open']}{made}\n{match['close']}"

    filled, count = _BLOCK.subn(block, text)
    if count != text.count(_OPEN):
        raise InputError(
            f"expected every '{_OPEN}NAME -->' to be closed by '<!-- /records -->' on "
            f"a later line, got {text.count(_OPEN)} and {count} whole; close them"
        )
    return filled


def _only(records: Records, beginning: str) -> Records:
    named = [(_name(r).replace(" ", "-"), r) for r in records]
    exact = [r for name, r in named if name == beginning]
    return exact or [r for name, r in named if name.startswith(beginning)]


def _name(record: Record | RecipeRun) -> str:
    return record.recipe if isinstance(record, RecipeRun) else record.what


def table(records: Records, *, brief: bool = False) -> str:
    """Return the newest records as Markdown: of comparisons for each machine.

    What a recipe claims holds anywhere, so that of a recipe one record counts; how
    many times faster something is belongs to its machine.

    Args:
        records: Oldest first.
        brief: Whether a recipe is one row, in place of one for each claim.

    Returns:
        One table per machine and kind of record, with the machine named below it.
    """
    newest = {
        (_name(r), None if isinstance(r, RecipeRun) else r.machine): r for r in records
    }
    groups: dict[tuple[type, str], list[Record | RecipeRun]] = {}
    for record in newest.values():
        where = f"{record.machine}; torch {record.versions.get('torch', 'unknown')}"
        groups.setdefault((type(record), where), []).append(record)
    recipes = _brief_recipes if brief else _recipes
    parts = [
        f"{recipes(group) if kind is RecipeRun else _comparisons(group)}\n\n"
        f"Measured on {where}."
        for (kind, where), group in groups.items()
    ]
    return "\n\n".join(parts) or EMPTY


def _recipes(runs: Iterable[Record | RecipeRun]) -> str:
    rows = [
        [run.recipe, claim.name, claim.value, claim.gate, claim.held, run.commit]
        for run in runs
        if isinstance(run, RecipeRun)
        for claim in run.claims
    ]
    return _markdown(["recipe", "claim", "value", "gate", "held", "commit"], rows)


def _brief_recipes(runs: Iterable[Record | RecipeRun]) -> str:
    rows = []
    for run in runs:
        if isinstance(run, RecipeRun):
            gated = [claim for claim in run.claims if claim.gate != "reported"]
            held = f"{sum(claim.held for claim in gated)} of {len(gated)}"
            shown = "; ".join(_claim(claim) for claim in gated)
            rows.append([run.recipe, held, shown, run.commit])
    return _markdown(["recipe", "claims held", "measured (gate)", "commit"], rows)


def _claim(claim: Claim) -> str:
    name = claim.name.replace("_", " ")
    if claim.passed and claim.gate == f"= {claim.value}":
        return f"{name} {claim.value}"
    return f"{name} {_figure(claim.value)} ({claim.gate})"


def _comparisons(records: Iterable[Record | RecipeRun]) -> str:
    rows = [
        [
            record.what,
            f"{_figure(record.before)} {record.unit}",
            f"{_figure(record.after)} {record.unit}",
            f"{_figure(record.mean)} ± {_figure(record.spread)}",
            record.n,
            record.equality,
            record.commit,
        ]
        for record in records
        if isinstance(record, Record)
    ]
    heads = ["what", "before", "after", "times better", "runs", "results", "commit"]
    return _markdown(heads, rows)


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_figure(c) for c in row)} |" for row in lines)


def _figure(value: object) -> str:
    """Return a cell: three digits are more than most measurements hold."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
