"""What the recipes of encoder repair for one GPU share: sizes, data, tasks, output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bezoar.attacks import BadEncoder
from bezoar.bench.machine import commit, machine
from bezoar.bench.plain_data import read_plain
from bezoar.bench.recipe import Claims
from bezoar.bench.tiny_encoders import shrunk, typical
from bezoar.data import ImageData, digit_images
from bezoar.metrics import EncoderTask, evaluate_encoders
from bezoar.models import SimCLR, load_simclr, simclr
from bezoar.repair import MIMIC, Distillation, EncoderFineTuning
from bezoar.results import EncoderEvaluation
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import EncoderTraining

TARGET, DIGIT = 9, 1  # truck, and the digit one
_POOL = 1000  # the last rows: references come from them, and nothing else
Rows = list[EncoderEvaluation]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a run is.

    Attributes:
        network: Name of the encoder.
        rows: Training images there are; the last 1,000 are kept for references.
        clean: Images that the defender has; the first rows.
        labelled: Images for the head; they follow the clean ones.
        test: Test images.
        training: How the encoder is pre-trained.
        attack: The attack on it.
        repair: MIMIC's settings.
        ablation_epochs: Epochs of each run of the ablation.
    """

    network: str
    rows: int
    clean: int
    labelled: int
    test: int
    training: EncoderTraining
    attack: BadEncoder
    repair: MIMIC
    ablation_epochs: int

    def distillation(self) -> Distillation:
        """Return plain distillation of as many steps."""
        return Distillation(
            epochs=self.repair.epochs, batch_size=self.repair.batch_size
        )

    def fine_tuning(self) -> EncoderFineTuning:
        """Return fine-tuning, at most as long as the repair."""
        return EncoderFineTuning(epochs=min(100, self.repair.epochs))


SIZES = {
    "paper": Size(
        network="resnet18",
        rows=50_000,
        clean=2000,
        labelled=5000,
        test=10_000,
        training=EncoderTraining(epochs=100, batch_size=512),
        attack=BadEncoder(epochs=40, lr=3e-3, num_reference_views=32),
        repair=MIMIC(),
        ablation_epochs=250,
    ),
    "tiny": Size(
        network="tiny",
        rows=2400,
        clean=200,
        labelled=300,
        test=300,
        training=replace(EncoderTraining.tiny(), epochs=1),
        attack=replace(BadEncoder.tiny(), epochs=1),
        repair=replace(MIMIC.tiny(), epochs=1, information_epochs=2),
        ablation_epochs=1,
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """One run: what was asked for, and the images.

    Attributes:
        size: How large it is.
        seed: Seeds everything.
        work: Folder for encoders and checkpoints.
        runtime: Where to run.
        train: Training images without the pool.
        pool: Images that references come from.
        test: Test images.
        claims: What is claimed.
    """

    size: Size
    seed: int
    work: Path
    runtime: Runtime
    train: ImageData
    pool: ImageData
    test: ImageData
    claims: Claims

    @property
    def clean(self) -> ImageData:
        """Images that the defender has."""
        return self.train.take(torch.arange(self.size.clean))

    def tasks(self) -> list[EncoderTask]:
        """Return the two downstream tasks."""
        first = self.size.clean
        own = torch.arange(first, first + self.size.labelled)
        digits = digit_images(size=self.test.images.shape[-1])
        order = torch.randperm(len(digits), generator=generator(0, "digits"))
        return [
            EncoderTask(
                name="cifar10",
                train=self.train.take(own),
                test=self.test,
                target_class=TARGET,
            ),
            EncoderTask(
                name="digits",
                train=digits.take(order[:1347]),
                test=digits.take(order[1347:]),
                target_class=DIGIT,
            ),
        ]

    def references(self, clean: nn.Module) -> torch.Tensor:
        """Return the reference image of the target class."""
        place = typical(self.pool, clean, target=TARGET)
        return self.pool.images[place : place + 1]

    def victims(self) -> tuple[SimCLR, SimCLR]:
        """Load what ``mimic_victim`` saved.

        Returns:
            The clean and the backdoored encoder.
        """
        clean, bad = (
            load_simclr(self.work / f"{name}-{self.seed}.safetensors")
            for name in ("clean", "backdoored")
        )
        return clean, bad

    def measured(self, encoders: Mapping[str, nn.Module]) -> dict[str, Rows]:
        """Measure encoders on both tasks, beside an untrained one.

        Args:
            encoders: By name; "clean" gives the floor, "teacher" the whole.

        Returns:
            The evaluations by task.
        """
        untrained = simclr(self.size.network, seed=self.seed + 1000)
        found = evaluate_encoders(
            {**encoders, "untrained": untrained},
            tasks=self.tasks(),
            attack=self.size.attack,
            runtime=self.runtime,
        )
        self.claims.facts["measured"] = [asdict(row) for row in found]
        return {
            task: [row for row in found if row.task == task]
            for task in ("cifar10", "digits")
        }


def run(name: str, body: Callable[[Setting], None], about: str | None) -> int:
    """Run a recipe as a script and print one JSON object.

    Args:
        name: The recipe's name.
        body: Makes the claims.
        about: What ``--help`` says.

    Returns:
        Exit code: 0 all claims hold, 1 one does not.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of train and test, npz or parquet",
    )
    parser.add_argument("--work", type=Path, required=True, help="for encoders")
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--seed", type=int, default=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    options = parser.parse_args()
    start = time.perf_counter()
    setting = _setting(options)
    body(setting)
    claims = setting.claims
    claims.facts["machine"], claims.facts["commit"] = asdict(machine()), commit()
    result = {
        "recipe": f"paper/{name}",
        "size": options.size,
        "seconds": round(time.perf_counter() - start, 1),
        "claims": [asdict(claim) for claim in claims.rows],
        "seed": options.seed,
        "facts": claims.facts,
    }
    print(json.dumps(result))  # noqa: T201, its result
    return 0 if all(claim.passed for claim in claims.rows) else 1


def named(rows: Rows, name: str) -> EncoderEvaluation:
    """Return the evaluation of one encoder.

    Args:
        rows: Of one task.
        name: The encoder's name.

    Returns:
        The evaluation.
    """
    return next(row for row in rows if row.encoder == name)


def _setting(options: argparse.Namespace) -> Setting:
    size = SIZES[options.size]
    whole, test = (read_plain(options.data, split) for split in ("train", "test"))
    whole = whole.take(torch.arange(min(size.rows, len(whole))))
    test = test.take(torch.arange(min(size.test, len(test))))
    if size.network == "tiny":
        whole, test = shrunk(whole), shrunk(test)
    edge = len(whole) - _POOL
    options.work.mkdir(parents=True, exist_ok=True)
    return Setting(
        size=size,
        seed=options.seed,
        work=options.work,
        runtime=Runtime(device=options.device, batch_size=512, progress=_shown),
        train=whole.take(torch.arange(edge)),
        pool=whole.take(torch.arange(edge, len(whole))),
        test=test,
        claims=Claims(seed=options.seed),
    )


def _shown(progress: Progress) -> None:
    if progress.metrics and (
        progress.done % 50 == 0 or progress.done == progress.total
    ):
        figures = " ".join(f"{k}={v:.4g}" for k, v in progress.metrics.items())
        text = f"{progress.stage} {progress.done}/{progress.total} {figures}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201, a script's progress
