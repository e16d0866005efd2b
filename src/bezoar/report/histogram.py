"""A histogram as the bars and marks that a page draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

HEIGHT = 180  # pixels of the tallest bar
_LEAST = 2  # pixels of a bar of one image: it must be seen
_NUM_TICKS = 9


def drawn(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bars and marks of a histogram.

    Places on the axis are in percent, so that a narrow page has the same text size.

    Args:
        section: A histogram as the schema has it.

    Returns:
        "bars" (left, width, and the top and height of both kinds of images), "ticks",
        "threshold" in percent or None, "top" (the largest count) and "total".

    Example:
        >>> plot = drawn(
        ...     {
        ...         "edges": [0.0, 1.0, 2.0],
        ...         "counts": [3, 1],
        ...         "flagged": [0, 1],
        ...         "threshold": 1.0,
        ...     }
        ... )
        >>> plot["threshold"], plot["bars"][1]["flagged_height"]
        (50.0, 60)
    """
    edges, counts = section["edges"], section["counts"]
    low, high, top = edges[0], edges[-1], max(*counts, 1)
    width = 100 / len(counts)
    bars = []
    for i, (count, flagged) in enumerate(zip(counts, section["flagged"], strict=True)):
        if count == 0:
            continue
        marked = _pixels(flagged, top)
        whole = max(_pixels(count, top), marked + (_LEAST if flagged < count else 0))
        bars.append(
            {
                "left": round(i * width, 3),
                "width": round(width * 0.88, 3),
                "height": whole - marked,
                "top": HEIGHT - whole,
                "flagged_height": marked,
                "flagged_top": HEIGHT - marked,
                "from": edges[i],
                "to": edges[i + 1],
                "count": count,
                "flagged": flagged,
            }
        )
    threshold = section["threshold"]
    place = None
    if threshold is not None and high > low:
        place = round(min(max(100 * (threshold - low) / (high - low), 0), 100), 3)
    return {
        "bars": bars,
        "ticks": _ticks(low, high),
        "threshold": place,
        "top": top,
        "total": sum(counts),
        "flagged": sum(section["flagged"]),
    }


def _pixels(count: int, top: int) -> int:
    return max(_LEAST, round(HEIGHT * count / top)) if count else 0


def _ticks(low: float, high: float) -> list[dict[str, Any]]:
    rough = (high - low) / _NUM_TICKS
    if not rough > 0:
        return [{"at": 50.0, "text": f"{low:.3g}"}]
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    values = [(first + i) * step for i in range(count)]
    return [
        {
            "at": round(100 * (v - low) / (high - low), 3),
            "text": f"{round(v, 10):.6g}",
        }
        for v in values
    ]
