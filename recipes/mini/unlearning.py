"""Unlearning on CIFAR-10: backdoors forgotten from a detection alone, at little cost.

Two networks are trained on 5,000 images each, as in the recipe of the detection: 5 %
with BadNets, 10 % with a blended pattern. The first 4,000 rows are scored, for the
sake of time, and the networks are repaired with those rows and what was flagged among
them; nothing is told about the poison. Settings and gates are the same for all seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from bezoar.attacks import BadNets, Blended
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.data import ImageData
from bezoar.detect import CognitiveDistillation
from bezoar.metrics import evaluate, leakage, purity
from bezoar.models import Architecture
from bezoar.repair import Unlearning
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

LONG = True  # some three minutes and more
NUM_IMAGES, NUM_SCORED, NUM_TEST = 5000, 4000, 2000
PROTOCOL = Training(epochs=15, batch_size=64)
DETECTOR = CognitiveDistillation()
REPAIR = Unlearning()

# The gates that were set before anything was measured.
BEFORE, AFTER, LOSS = 0.95, 0.05, 0.03


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Make networks trained on poisoned images forget the trigger."""
    runtime = Runtime(progress=report)
    train = cifar10("train", limit=NUM_IMAGES)
    test = cifar10("test", limit=NUM_TEST)
    for attack in (BadNets(poison_rate=0.05), Blended(poison_rate=0.10)):
        poisoned = attack.poison(train, seed=claims.seed)
        model = trained(poisoned.data, seed=claims.seed, runtime=runtime)
        measure = partial(evaluate, data=test, attack=attack, runtime=runtime)
        rows = torch.arange(NUM_SCORED)
        scored, is_poison = poisoned.data.take(rows), poisoned.is_poison[rows]
        found = DETECTOR.detect(scored, model=model, seed=claims.seed, runtime=runtime)
        repair = REPAIR.repair(
            model, data=scored, detection=found, seed=claims.seed, runtime=runtime
        )
        before, after = measure(model), measure(repair.model)
        name = poisoned.provenance.method
        assert before.attack_success_rate is not None
        assert after.attack_success_rate is not None
        claims.at_least(f"{name}_success_before", before.attack_success_rate, BEFORE)
        claims.at_most(f"{name}_success_after", after.attack_success_rate, AFTER)
        loss = before.clean_accuracy - after.clean_accuracy
        claims.at_most(f"{name}_accuracy_loss", loss, LOSS)
        claims.equal(f"{name}_status", repair.status, "repaired")
        claims.facts[name] = {
            "clean_accuracy": [before.clean_accuracy, after.clean_accuracy],
            "target_class_accuracy": [
                before.target_class_accuracy,
                after.target_class_accuracy,
            ],
            "flagged": found.verdict.num_flagged,
            "purity": purity(repair.chosen("suspicious", scored.ids), is_poison),
            "leakage": leakage(repair.chosen("trusted", scored.ids), is_poison),
            "kept_row": repair.kept,
            "seconds": [found.provenance.seconds, repair.provenance.seconds],
        }


def trained(data: ImageData, *, seed: int, runtime: Runtime) -> torch.nn.Module:
    """Return the small network of bezoar, trained on ``data``."""
    network = Architecture(name="convnet", num_classes=10, width=32).build(seed=seed)
    return train_classifier(
        network, data=data, settings=PROTOCOL, seed=seed, runtime=runtime
    )


if __name__ == "__main__":
    sys.exit(main("unlearning", body))
