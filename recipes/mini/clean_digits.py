"""Handwritten digits: no class of a clean set is accused, and a small patch still is.

Simple shapes are the hard null case: a digit's class may hang on one short stroke, so
that whole classes have small masks. Six networks are trained on clean digits and two
on digits with the BadNets patch; every verdict is made with the defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from torch import nn

from bezoar.attacks import BadNets
from bezoar.bench.recipe import Claims, main
from bezoar.data import ImageData, digit_images
from bezoar.data.sampling import sample_images
from bezoar.detect import CognitiveDistillation
from bezoar.models import Architecture
from bezoar.results import Detection
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

NUM_IMAGES = 1300
PROTOCOL = Training(epochs=20)
CLEAN = [(seed, width) for seed in range(3) for width in (16, 32)]
POISONED = [(seed, 32) for seed in range(2)]


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Judge clean and poisoned digits with the defaults."""
    runtime, offset = Runtime(progress=report), 10 * claims.seed
    verdicts = []
    for seed, width in CLEAN:
        data = digits(seed=offset + seed)
        verdicts.append(judged(data, offset + seed, width=width, runtime=runtime))
    accused = [found for found in verdicts if found.verdict.status == "found"]
    claims.equal("clean_accused", len(accused), 0)
    flagged = sum(found.verdict.num_flagged for found in verdicts)
    claims.equal("clean_flagged", flagged, 0)
    differences = [
        suspects - controls
        for found in verdicts
        for suspects, controls in rates(found).values()
    ]
    claims.reported("largest difference by nature", max(differences, default=0.0))
    named = 0
    for seed, width in POISONED:
        attack = BadNets(poison_rate=0.05)
        data = attack.poison(digits(seed=offset + seed), seed=offset + seed).data
        found = judged(data, offset + seed, width=width, runtime=runtime)
        verdicts.append(found)
        named += (found.verdict.status, found.verdict.target_class) == ("found", 0)
    claims.equal("badnets_found_with_their_class", named, len(POISONED))
    claims.facts["verdicts"] = [found.verdict.status for found in verdicts]
    claims.facts["transplant_rates"] = [rates(found) for found in verdicts]
    claims.facts["largest_z"] = [
        round(max(row.z for row in found.verdict.classes), 1) for found in verdicts
    ]


def digits(*, seed: int) -> ImageData:
    """Return the digits of one trial, in an order that does not tell of the draw."""
    return sample_images(digit_images(), NUM_IMAGES, seed=seed)


def judged(data: ImageData, seed: int, *, width: int, runtime: Runtime) -> Detection:
    """Return the verdict on a set by a network that was trained on it."""
    network: nn.Module = Architecture(
        name="convnet", num_classes=10, width=width
    ).build(seed=seed)
    network = train_classifier(
        network, data=data, settings=PROTOCOL, seed=seed, runtime=runtime
    )
    return CognitiveDistillation().detect(
        data, model=network, seed=seed, runtime=runtime
    )


def rates(found: Detection) -> dict[int, list[float]]:
    """Return the transplant rates of each class that stood out, and its controls'."""
    return {
        row.label: [round(row.transplant_rate, 3), round(row.control_rate, 3)]
        for row in found.verdict.classes
        if row.transplant_rate is not None and row.control_rate is not None
    }


if __name__ == "__main__":
    sys.exit(main("clean_digits", body))
