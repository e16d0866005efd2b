"""How a classifier does before and after, on images that no other step looks at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from torch import nn

from bezoar.attacks import attack_from_manifest
from bezoar.engine.dispatch import read_all
from bezoar.engine.relay import digest
from bezoar.errors import StorageError
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.task import Task
from bezoar.metrics import evaluate
from bezoar.models import fingerprint
from bezoar.results import Evaluation
from bezoar.storage import read_object, write_json

MEASURED = "measured.json"


def measured(
    task: Task, ledger: Ledger, before: nn.Module | None, after: nn.Module | None
) -> tuple[Evaluation | None, Evaluation | None]:
    """Measure a classifier before and after, where there are test images.

    Args:
        task: The guard.
        ledger: Does the step.
        before: The model that the detection looked at.
        after: The model without what was found; None where none was made.

    Returns:
        How each does; None where it was not measured.
    """
    test = task.test
    if test is None or task.is_encoder or before is None:
        reason = "no clean test images were given (--test)"
        if test is not None:
            reason = "there is no classifier to measure"
        ledger.pass_over("measure", "cannot run", reason)
        return None, None
    path = task.folder / MEASURED

    def make() -> tuple[tuple[Evaluation | None, Evaluation | None], str]:
        data, _ = read_all(test, image_size=task.image_size, runtime=task.runtime)
        attack = None if task.attack is None else attack_from_manifest(task.attack)

        def told(model: nn.Module | None) -> Evaluation | None:
            if model is None:
                return None
            return evaluate(model, data, attack=attack, runtime=task.runtime)

        pair = told(before), told(after)
        rows = [None if e is None else asdict(e) for e in pair]
        write_json(path, {"before": rows[0], "after": rows[1]})
        return pair, _in_words(*pair)

    done = ledger.do(
        "measure",
        key=digest(
            test=str(test.spec),
            num_test=test.num_images,
            attack=None if task.attack is None else task.attack.read_bytes().hex(),
            models=[None if m is None else fingerprint(m) for m in (before, after)],
        ),
        make=make,
        load=lambda: _load_measured(path),
    )
    return done or (None, None)


def _in_words(before: Evaluation | None, after: Evaluation | None) -> str:
    def told(name: str, what: str) -> str:
        values = [getattr(e, name) for e in (before, after) if e is not None]
        shown = [f"{value:.1%}" for value in values if value is not None]
        return f"{what} {' before, '.join(shown)}{' after' * (len(shown) > 1)}" * bool(
            shown
        )

    rows = (
        told("clean_accuracy", "accuracy"),
        told("attack_success_rate", "attack success"),
    )
    return "; ".join(row for row in rows if row)


def _load_measured(path: Path) -> tuple[Evaluation | None, Evaluation | None]:
    plain = cast("dict[str, Any]", read_object(path))
    try:
        rows = [plain[name] for name in ("before", "after")]
        first, second = (None if r is None else Evaluation(**r) for r in rows)
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"expected {path.name} as it was written, got another format ({error}); "
            "remove it and run again"
        ) from error
    return first, second
