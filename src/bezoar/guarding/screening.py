"""A look at the whole set before its images are scored one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bezoar.engine import sample_source
from bezoar.errors import StorageError
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.task import Task
from bezoar.purify import screen_unlearnable
from bezoar.results import Provenance, Screening
from bezoar.storage import read_object, write_json
from bezoar.storage.parts import built

_SCREENED = "screened.json"


def screened(task: Task, ledger: Ledger) -> Screening | None:
    """Look whether images hold noise that gives their class away.

    Args:
        task: The guard.
        ledger: Does the step.

    Returns:
        What it came to; None where it was not done.
    """
    if not task.source.class_names:
        ledger.pass_over(
            "screen",
            "cannot run",
            "there are no labels, so noise that goes with them cannot be looked for",
        )
        return None

    def make() -> tuple[Screening, str]:
        sample = sample_source(
            task.source,
            task.rule.screen_images,
            image_size=task.source.probe_size(),
            seed=task.seed,
            runtime=task.runtime,
        )
        found = screen_unlearnable(
            sample,
            max_images=task.rule.screen_images,
            seed=task.seed,
            runtime=task.runtime,
        )
        write_json(task.folder / _SCREENED, found)
        return found, found.summary

    return ledger.do(
        "screen",
        key=task.key(screen_images=task.rule.screen_images),
        make=make,
        load=lambda: _load_screening(task.folder / _SCREENED),
    )


def _load_screening(path: Path) -> Screening:
    plain = cast("dict[str, Any]", read_object(path))
    try:
        plain["health"] = tuple(plain["health"])
        plain["provenance"] = built(Provenance, plain["provenance"])
        return Screening(**plain)
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"expected {path.name} as it was written, got another format ({error}); "
            "remove it and run again"
        ) from error
