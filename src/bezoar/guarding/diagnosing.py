"""A look at an encoder that was given: does a small patch blind it?"""

from __future__ import annotations

from dataclasses import asdict

from torch import nn

from bezoar.engine import sample_source
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.task import Task
from bezoar.models import fingerprint
from bezoar.results import Diagnosis
from bezoar.storage import load_diagnosis, save_diagnosis

FOLDER = "diagnosis"


def diagnosed(
    task: Task, ledger: Ledger, encoder: nn.Module | None
) -> Diagnosis | None:
    """Look for a trigger in an encoder.

    Args:
        task: The guard.
        ledger: Does the step.
        encoder: The encoder, if one was given.

    Returns:
        What it came to; None where it was not done.
    """
    if encoder is None or not task.is_encoder:
        ledger.pass_over("diagnose", "skipped", "not needed: no encoder was given")
        return None
    method, folder = task.tools.diagnosis, task.folder / FOLDER

    def make() -> tuple[Diagnosis, str]:
        sample = sample_source(
            task.source,
            method.num_images,
            image_size=task.image_size,
            seed=task.seed,
            runtime=task.runtime,
        )
        found = method.diagnose(
            encoder, data=sample, seed=task.seed, runtime=task.runtime
        )
        save_diagnosis(found, folder)
        return found, found.summary

    return ledger.do(
        "diagnose",
        key=task.key(settings=asdict(method), model=fingerprint(encoder)),
        make=make,
        load=lambda: load_diagnosis(folder),
    )
