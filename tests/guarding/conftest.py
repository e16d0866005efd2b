"""A small poisoned set on disk, and tools that are quick."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bezoar.attacks import BadNets, write_manifest
from bezoar.data import ImageData, digit_images, write_images
from bezoar.detect import CognitiveDistillation
from bezoar.guarding import Guarded, Tools, guard
from bezoar.models import Architecture
from bezoar.results import Poisoned
from bezoar.train import Training

TOOLS = Tools(
    detector=CognitiveDistillation(steps=24, num_masks=4),
    architecture=Architecture(name="convnet", num_classes=10, width=8),
    training=Training(epochs=10),
    final_training=Training(epochs=4),
)


@dataclass(frozen=True)
class Drill:
    """A poisoned folder, clean test images, and what a guard came to."""

    root: Path
    poisoned: Poisoned
    data: Path
    test: Path
    manifest: Path

    def guard(self, out: Path, **options: object) -> Guarded:
        given: dict[str, object] = {
            "tools": TOOLS,
            "skip": ["screen"],
            "test": self.test,
            "attack": self.manifest,
        }
        return guard(self.data, out=out, **(given | options))  # type: ignore[arg-type]


def digits(first: int, last: int) -> ImageData:
    return digit_images(size=16).take(torch.arange(first, last))


@pytest.fixture(scope="session")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    root = tmp_path_factory.mktemp("drill")
    poisoned = BadNets(poison_rate=0.08).poison(digits(0, 900), seed=0)
    write_images(poisoned.data, root / "bad", format="class_folders")
    write_images(digits(900, 1150), root / "test", format="class_folders")
    write_manifest(poisoned, root / "attack.json")
    return Drill(root, poisoned, root / "bad", root / "test", root / "attack.json")


@pytest.fixture(scope="session")
def guarded(drill: Drill) -> Guarded:
    """The whole chain, once for all tests that only look."""
    return drill.guard(drill.root / "run")
