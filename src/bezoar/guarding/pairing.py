"""The search for poison in pairs of images and captions.

What is found and what is forgotten come of one search there: the repair of an
image-text model isolates the pairs that it makes the model forget.
"""

from __future__ import annotations

from dataclasses import asdict

from bezoar.data import Unreadable
from bezoar.errors import StorageError
from bezoar.guarding.ledger import Ledger
from bezoar.guarding.task import Task
from bezoar.models import fingerprint
from bezoar.results import Repair
from bezoar.storage import load_repair, save_detection, save_repair

REPAIRED = "repaired"
Searched = tuple[Repair, tuple[Unreadable, ...]]


def search(task: Task, ledger: Ledger) -> tuple[Searched | None, str]:
    """Search pairs for poison, and make a copy of the model forget it.

    Args:
        task: The guard; it has pairs and an image-text model.
        ledger: Does the step.

    Returns:
        The repair with what it detected, and the files that are no images; None where
        that was skipped or failed. Then the key of all it depends on.
    """
    pairs, clip, method = task.pairs, task.clip, task.tools.pair_repair
    assert pairs is not None
    assert clip is not None
    folder = task.folder / REPAIRED

    def make() -> tuple[Searched, str]:
        side = clip.resolution
        data, unreadable = pairs.read(image_size=(side, side))
        repair: Repair = method.repair(
            clip,
            data=data,
            reference=task.reference,
            seed=task.seed,
            runtime=task.working("search"),
        )
        save_repair(repair, folder)
        if repair.detection is not None:
            save_detection(repair.detection, task.folder, unreadable=unreadable)
        return (repair, unreadable), repair.summary

    def load() -> Searched:
        if not folder.exists():
            raise StorageError(
                f"expected a repair in {str(folder)!r}, got nothing; search again"
            )
        return load_repair(folder, model=clip), ()

    key = task.key(
        clip=task.model_key,
        reference=None if task.reference is None else fingerprint(task.reference),
        method=type(method).__name__,
        settings=asdict(method),
    )
    return ledger.do("detect", key=key, make=make, load=load), key
