"""Cognitive Distillation on CIFAR-10: poison found, triggers seen, nothing accused.

Three networks are trained on 5,000 images each: 5 % with BadNets, 10 % with a blended
pattern (at 5 % it is ranked little above 0.90), and all clean; then 2,000 rows of each
set are scored with no knowledge of the poison. Settings and gates are the same for
every seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import avg_pool2d

from bezoar.attacks import BadNets, Blended
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.data import ImageData
from bezoar.detect import CognitiveDistillation
from bezoar.metrics import auroc, bootstrap_auroc, evaluate
from bezoar.models import Architecture
from bezoar.results import Detection, Poisoned
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

NUM_IMAGES, NUM_SCORED, NUM_TEST = 5000, 2000, 2000
PROTOCOL = Training(epochs=15, batch_size=64)
METHOD = CognitiveDistillation()


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Detect poison in CIFAR-10 with networks trained on the poisoned images."""
    runtime = Runtime(progress=report)
    train = cifar10("train", limit=NUM_IMAGES)
    test = cifar10("test", limit=NUM_TEST)
    badnets, blended = BadNets(poison_rate=0.05), Blended(poison_rate=0.10)
    for attack, gate in ((badnets, 0.95), (blended, 0.90)):
        poisoned = attack.poison(train, seed=claims.seed)
        model = trained(poisoned.data, seed=claims.seed, runtime=runtime)
        shown = evaluate(model, test, attack=attack, runtime=runtime)
        method = replace(METHOD, num_masks=100)
        scored = first(poisoned)
        found = method.detect(
            scored.data, model=model, seed=claims.seed, runtime=runtime
        )
        name = poisoned.provenance.method
        assert shown.attack_success_rate is not None
        success = shown.attack_success_rate
        claims.at_least(f"{name}_attack_success_rate", success, 0.95)
        claims.at_least(f"{name}_auroc", auroc(found.scores, scored.is_poison), gate)
        claims.equal(f"{name}_verdict", found.verdict.status, "found")
        claims.equal(f"{name}_target_class", found.verdict.target_class, 0)
        if attack is badnets:
            claims.at_least(
                "badnets_masks_on_trigger", masks_on_trigger(found, scored), 0.90
            )
        claims.facts[name] = facts(found, scored)
        claims.facts[f"{name}_clean_accuracy"] = shown.clean_accuracy
    model = trained(train, seed=claims.seed, runtime=runtime)
    found = METHOD.detect(
        train.take(torch.arange(NUM_SCORED)),
        model=model,
        seed=claims.seed,
        runtime=runtime,
    )
    claims.equal("clean_verdict", found.verdict.status, "nothing found")
    claims.at_most("clean_flagged", found.verdict.num_flagged, 0)
    claims.facts["clean_largest_z"] = max(row.z for row in found.verdict.classes)
    claims.facts["clean_largest_excess"] = max(
        row.excess for row in found.verdict.classes
    )


def trained(data: ImageData, *, seed: int, runtime: Runtime) -> torch.nn.Module:
    """Return the small network of bezoar, trained on ``data``."""
    network = Architecture(name="convnet", num_classes=10, width=32).build(seed=seed)
    return train_classifier(
        network, data=data, settings=PROTOCOL, seed=seed, runtime=runtime
    )


def first(poisoned: Poisoned) -> Poisoned:
    """Return the rows that are scored: the first 2,000, for the sake of time."""
    rows = torch.arange(NUM_SCORED)
    return replace(
        poisoned,
        data=poisoned.data.take(rows),
        is_poison=poisoned.is_poison[rows],
        original_labels=poisoned.original_labels[rows],
    )


def masks_on_trigger(found: Detection, poisoned: Poisoned) -> float:
    """Return the share of poison whose mask is brightest on the 3x3 trigger.

    The brightest 3x3 window has to overlap the trigger; by chance 1 % would.
    """
    assert found.masks is not None
    truth = dict(zip(poisoned.data.ids, poisoned.is_poison.tolist(), strict=True))
    hits = torch.tensor([truth[name] for name in found.mask_ids])
    windows = avg_pool2d(found.masks[hits].float(), 3, stride=1)
    side = windows.shape[-1]
    place = windows.flatten(1).argmax(1)
    overlaps = (place // side >= side - 3) & (place % side >= side - 3)
    return overlaps.float().mean().item()


def facts(found: Detection, poisoned: Poisoned) -> dict[str, object]:
    """Return what is printed beside the claims of one attack."""
    truth, flagged = poisoned.is_poison, found.flagged
    share = found.columns["mask_share"]
    num_flagged = max(1, int(flagged.sum()))
    low, high = bootstrap_auroc(found.scores, truth)
    return {
        "auroc_interval": [round(low, 4), round(high, 4)],
        "median_share_clean": round(share[~truth].median().item(), 4),
        "median_share_poison": round(share[truth].median().item(), 4),
        "verdict": found.verdict.status,
        "target_class": found.verdict.target_class,
        "flagged": int(flagged.sum()),
        "recall": round(flagged[truth].float().mean().item(), 4),
        "false_share": round((flagged & ~truth).sum().item() / num_flagged, 4),
        "poison_rate": found.verdict.poison_rate,
        "poison_rate_interval": found.verdict.poison_rate_interval,
        "largest_z": round(max(row.z for row in found.verdict.classes), 1),
        "transplant_rates": [
            [row.label, row.transplant_rate, row.control_rate]
            for row in found.verdict.classes
            if row.transplant_rate is not None
        ],
        "l1_weight": found.provenance.settings["l1_weight"],
        "seconds": round(found.provenance.seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main("cognitive_distillation", body))
