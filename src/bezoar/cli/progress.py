"""Progress bars on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bezoar.runtime import Progress, Runtime

Report = Callable[[Progress], None]

_NAMES = {
    "fingerprint": "reading the images",
    "verify": "checking the files",
    "screen": "screening",
    "read": "decoding the images",
    "train": "training a model",
    "sample": "drawing a sample",
    "calibrate": "calibrating",
    "score": "scoring the images",
    "distil": "scoring the images",
    "represent": "computing features",
    "judge": "judging",
    "overlay": "scoring the images",
    "evaluate": "evaluating",
    "poison": "poisoning",
    "unlearn": "unlearning",
    "retrain": "training anew",
    "rank": "ranking the images",
    "purify": "purifying the images",
    "rough": "training, first stage",
    "fine": "training, second stage",
}


@contextmanager
def bars() -> Iterator[Report]:
    """Show a bar for each stage; show nothing where stderr is no terminal.

    Yields:
        What to give a ``Runtime`` as ``progress``.
    """
    if not sys.stderr.isatty():
        yield Runtime().progress
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    shown = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(file=sys.stderr),
    )
    stages: dict[str, tuple[TaskID, int]] = {}  # the bar of a stage, how far it is

    def report(progress: Progress) -> None:
        name, total = progress.stage, progress.total or None
        bar, done = stages.get(name, (None, 0))
        if bar is None or progress.done < done:  # or the stage has begun anew
            label = _NAMES.get(name, name)
            bar = shown.add_task(label, total=total, figures="")
        stages[name] = bar, progress.done
        shown.update(
            bar,
            completed=progress.done,
            total=total,
            figures=figures(progress),
        )

    with shown:
        yield report


def figures(progress: Progress) -> str:
    """Return the figures of a report as a few words.

    Args:
        progress: The report.

    Returns:
        Names and rounded values.

    Example:
        >>> figures(Progress(stage="train", done=1, total=2, metrics={"loss": 0.123}))
        'loss 0.123'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in progress.metrics.items()
    )
