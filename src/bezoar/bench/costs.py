"""What many images cost, from what one machine was measured to do: hours, by method."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bezoar.bench.records import RecipeRun, Record
from bezoar.bench.tables import EMPTY

NUM_IMAGES = 10_000_000
NUM_GPUS = 8
_BLOCK = re.compile(
    r"(?P<open><!-- costs:(?P<file>[\w-]+) -->\n).*?(?P<close><!-- /costs -->)",
    re.DOTALL,
)


def fill_costs(
    text: str, records: Callable[[str], Sequence[Record | RecipeRun]]
) -> str:
    r"""Return a page with its tables of costs made anew.

    A table stands between ``<!-- costs:FILE -->`` and ``<!-- /costs -->``.

    Args:
        text: The page in Markdown.
        records: Returns the records of a file, given its name without ending.

    Returns:
        The page; all outside the marks is as it was.

    Example:
        >>> print(fill_costs("<!-- costs:bench -->\n<!-- /costs -->", lambda _: ()))
        <!-- costs:bench -->
        *Not measured yet.*
        <!-- /costs -->
    """
    return _BLOCK.sub(
        lambda m: f"{m['open']}{cost_table(records(m['file']))}\n{m['close']}", text
    )


def cost_table(
    records: Sequence[Record | RecipeRun],
    *,
    num_images: int = NUM_IMAGES,
    num_gpus: int = NUM_GPUS,
) -> str:
    """Return what many images cost as Markdown.

    Args:
        records: Oldest first; comparisons in images per second of a pass count.
        num_images: How many images.
        num_gpus: How many GPUs, for the last column.

    Returns:
        One row for the newest record of each method and machine: images per second
        there, hours for all images there, and hours on the GPUs where each of them
        does g times what that machine did.
    """
    newest = {
        (r.what, r.machine): r
        for r in records
        if isinstance(r, Record) and r.unit == "images/s" and "training" not in r.what
    }
    if not newest:
        return EMPTY
    lines = [
        f"| method | measured on | images per second | hours for {num_images:,} there "
        f"| hours on {num_gpus} GPUs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for record in newest.values():
        hours = num_images / record.after / 3600
        lines.append(
            f"| {record.what} | {record.machine} | {record.after:.3g} | {hours:.3g} | "
            f"{hours / num_gpus:.3g} / g |"
        )
    return "\n".join(lines)
