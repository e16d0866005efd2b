"""UBT against seven attacks on the digits, those it cannot see among them.

Each attack plants 90 of 3,000 pairs. One whose victim does not have the backdoor
(attack success below 0.8, or a clean model that follows the trigger in more than 0.1)
judges nothing and says so. Gates stand on the fixed patterns; the others, and
label-consistent poison, which has true captions, are reported as they fall.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bezoar.attacks import (
    SIG,
    BadClip,
    Blended,
    TrojVQA,
    WaNet,
    check_attack_on,
    poison_pairs,
)
from bezoar.bench.clip_minis import (
    Mini,
    checkerboard,
    digits,
    train_reference,
    train_victim,
)
from bezoar.bench.recipe import Claims, main
from bezoar.bench.ubt_claims import success
from bezoar.metrics import purity
from bezoar.models import DualEncoder
from bezoar.results import PairTrigger
from bezoar.runtime import Progress, Runtime

LONG = True
PLANTED = 90
GATED = ("badnets", "blended", "sig")


def attacks(
    mini: Mini, reference: DualEncoder, *, seed: int
) -> dict[str, tuple[PairTrigger, bool]]:
    """Return the attacks, and whether they keep the captions of the target."""
    target, rate = mini.target_class, PLANTED / len(mini.victim)
    texts, known = mini.prompts[target], mini.reference
    word = TrojVQA(poison_rate=rate, target_class=target, epochs=2)
    patch = BadClip(poison_rate=rate, target_class=target, size=4, epochs=5, lr=0.01)
    return {
        "badnets": (checkerboard(mini, count=PLANTED), False),
        "blended": (Blended(poison_rate=rate, target_class=target), False),
        "sig": (SIG(poison_rate=rate, target_class=target), False),
        "wanet": (WaNet(poison_rate=rate, target_class=target), False),
        "label_consistent": (checkerboard(mini, count=PLANTED), True),
        "trojvqa": (
            word.learn(known, model=reference, captions=texts, seed=seed),
            False,
        ),
        "badclip": (
            patch.learn(known, model=reference, captions=texts, seed=seed),
            False,
        ),
    }


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Repair an image-text model of digits after each of several attacks."""
    runtime = Runtime(batch_size=256, progress=report)
    mini = digits(claims.seed)
    reference = train_reference(mini, seed=claims.seed, runtime=runtime)
    for name, (attack, keeps) in attacks(mini, reference, seed=claims.seed).items():
        drill = train_victim(
            mini,
            reference,
            attack,
            keeps_captions=keeps,
            name=name,
            seed=claims.seed,
            runtime=runtime,
        )
        took = check_attack_on(
            drill.victim,
            clean=reference,
            data=mini.test,
            prompts=mini.prompts,
            poisoned=poison_pairs(
                mini.victim,
                attack=attack,
                captions=None if keeps else mini.prompts[mini.target_class],
                seed=claims.seed,
            ),
            runtime=runtime,
        )
        repair = mini.method.repair(
            drill.victim,
            data=drill.data,
            reference=reference,
            seed=claims.seed,
            runtime=runtime,
        )
        before = drill.measure(drill.victim, runtime=runtime)
        after = drill.measure(repair.model, runtime=runtime)
        isolated = repair.chosen("isolated", drill.data.ids)
        lost = before.clean_accuracy - after.clean_accuracy
        if name in GATED:
            claims.equal(f"{name}_took", str(took.is_valid), "True")
            claims.at_most(
                f"{name}_success", success(after), round(took.floor + 0.05, 4)
            )
            claims.at_most(f"{name}_accuracy_loss", lost, 0.02)
        else:
            claims.reported(f"{name}_took", str(took.is_valid))
            claims.reported(f"{name}_success", success(after))
        claims.facts[name] = {
            "status": repair.status,
            "valid": took.is_valid,
            "floor": round(took.floor, 4),
            "success": [round(success(before), 4), round(success(after), 4)],
            "accuracy": [before.clean_accuracy, after.clean_accuracy],
            "target_accuracy": [
                before.target_class_accuracy,
                after.target_class_accuracy,
            ],
            "precision": purity(isolated, drill.is_poison) if isolated.any() else None,
            "seconds": round(repair.provenance.seconds, 1),
        }


if __name__ == "__main__":
    sys.exit(main("ubt_matrix", body))
