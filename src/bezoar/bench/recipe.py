"""What every recipe does: find its data, state its gates, print one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from bezoar.bench.records import Claim
from bezoar.data import ImageData, open_source
from bezoar.errors import BezoarError, InputError
from bezoar.runtime import Progress

CIFAR10 = "BEZOAR_CIFAR10"
PASSED, FAILED, NO_DATA = 0, 1, 3


@dataclass
class Claims:
    """The claims of one run of a recipe.

    Attributes:
        seed: Seeds everything in the run.
        rows: The claims so far, in order.
        facts: Numbers printed beside them, without a gate.
    """

    seed: int = 0
    rows: list[Claim] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    def at_least(self, name: str, value: float, gate: float) -> None:
        """Claim that a number reaches a gate.

        Args:
            name: What is claimed.
            value: What was measured.
            gate: The least that passes.
        """
        self._add(name, value, f">= {gate}", passed=value >= gate)

    def at_most(self, name: str, value: float, gate: float) -> None:
        """Claim that a number stays below a gate.

        Args:
            name: What is claimed.
            value: What was measured.
            gate: The most that passes.
        """
        self._add(name, value, f"<= {gate}", passed=value <= gate)

    def equal(self, name: str, value: str | int | None, gate: str | int) -> None:
        """Claim that a result is the one expected.

        Args:
            name: What is claimed.
            value: What came out.
            gate: What has to come out.
        """
        self._add(name, value, f"= {gate}", passed=value == gate)

    def reported(self, name: str, value: float | str) -> None:
        """State a number that is held against no gate.

        Args:
            name: What it is.
            value: What was measured.
        """
        self._add(name, value, "reported", passed=True)

    def wanted(
        self,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """State a number beside what was asked for, and whether it was reached.

        A recipe does not fail for it: take this for gates that were set before
        anything was measured and that the recipe is known to miss.

        Args:
            name: What it is.
            value: What was measured.
            at_least: The least that was asked for.
            at_most: The most that was asked for; one of the two is given.
        """
        reached = (at_least is None or value >= at_least) and (
            at_most is None or value <= at_most
        )
        gate = f">= {at_least}" if at_least is not None else f"<= {at_most}"
        word = "reached" if reached else "missed"
        self._add(name, value, f"wanted {gate}: {word}", passed=True)

    def _add(
        self, name: str, value: float | str | int | None, gate: str, *, passed: bool
    ) -> None:
        shown = round(value, 4) if isinstance(value, float) else value
        self.rows.append(Claim(name=name, value=shown, gate=gate, passed=passed))


def cifar10(split: Literal["train", "test"], *, limit: int, skip: int = 0) -> ImageData:
    """Read CIFAR-10 from where the environment says, or from beside the project.

    Args:
        split: Which half.
        limit: How many images, from the first on; the rows are shuffled.
        skip: How many of the first images to leave out.

    Returns:
        The images.

    Raises:
        InputError: If the data are not there.
    """
    beside = Path(__file__).resolve().parents[3].parent / "shared/data/cifar10"
    folder = Path(os.environ.get(CIFAR10, beside))
    path = folder / f"{split}.parquet"
    if not path.exists():
        raise InputError(
            f"expected CIFAR-10 as {split}.parquet in the folder that {CIFAR10} names, "
            "got none; see docs/data.md for what the file holds"
        )
    data, _ = open_source(path).read(image_size=(32, 32), limit=skip + limit)
    keep = [i >= skip for i in range(len(data))]
    import torch

    return data.subset(torch.tensor(keep)) if skip else data


def off_grid(data: ImageData) -> ImageData:
    """Return images shifted by 3 pixels down and right, the border reflected.

    CIFAR-10 is stored as JPEG here. Encoded again on the same grid of 8x8 blocks, most
    images come back as they were, and JPEG would seem to cost nothing.

    Args:
        data: The images.

    Returns:
        Images of the same size.
    """
    from torch.nn import functional

    shifted = functional.pad(data.images.float(), (3, 0, 3, 0), mode="reflect")
    images = shifted[..., :-3, :-3].byte().contiguous()
    return replace(data, images=images)


def main(
    name: str,
    body: Callable[[Claims, Callable[[Progress], None]], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a recipe as a script.

    Args:
        name: The recipe's name.
        body: Makes the claims; is told where to report progress.
        argv: The command line; None takes the process's own.

    Returns:
        Exit code: 0 all claims hold, 1 one does not, 3 the data are missing.
    """
    parser = argparse.ArgumentParser(prog=name, description=body.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=0, help="seeds everything")
    options = parser.parse_args(argv)
    claims, start = Claims(seed=options.seed), time.perf_counter()
    try:
        body(claims, _silent if options.json else _shown)
    except BezoarError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return NO_DATA if CIFAR10 in str(error) else FAILED
    seconds = round(time.perf_counter() - start, 1)
    passed = all(claim.passed for claim in claims.rows)
    if options.json:
        rows = [asdict(claim) for claim in claims.rows]
        result = {"recipe": name, "seconds": seconds, "claims": rows}
        print(json.dumps({**result, "seed": claims.seed, "facts": claims.facts}))
    else:
        for claim in claims.rows:
            word = "holds" if claim.passed else "FAILS"
            print(f"{word}  {claim.name}: {claim.value} ({claim.gate})")
        for fact, value in claims.facts.items():
            print(f"       {fact}: {value}")
        print(f"{name}: {seconds} s")
    return PASSED if passed else FAILED


def _silent(_: Progress) -> None:
    pass


def _shown(progress: Progress) -> None:
    if progress.done == progress.total:
        figures = " ".join(f"{k}={v:.3g}" for k, v in progress.metrics.items())
        print(f"{progress.stage} {progress.total} {figures}", file=sys.stderr)
