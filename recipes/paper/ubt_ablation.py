"""Which parts of UBT matter: the digits, several seeds, one change at a time.

Every row is the same victim repaired with one setting changed; n is the number of
seeds. Nothing is gated: the table is published as it falls. On one GPU or a few cores;
``--seeds 5`` and ``--planted 9 30 90`` make the whole of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from bezoar.bench.clip_minis import (
    Drill,
    checkerboard,
    digits,
    train_reference,
    train_victim,
)
from bezoar.bench.machine import commit, machine
from bezoar.bench.ubt_claims import success
from bezoar.metrics import purity
from bezoar.repair import UBT
from bezoar.runtime import Runtime

BASE = UBT.mini()
VARIANTS: dict[str, UBT] = {
    "as it is": BASE,
    "rank by similarity": replace(BASE, rank="similarity"),
    "no overfitting": replace(BASE, discovery="gap"),
    "overfit by InfoNCE": replace(BASE, overfit_loss="infonce"),
    "no word filter": replace(BASE, word_filter=False),
    "whole captions": replace(BASE, local_words=False),
    "8 pairs": replace(BASE, num_unlearn=8),
    "16 pairs": replace(BASE, num_unlearn=16),
    "64 pairs": replace(BASE, num_unlearn=64),
    "constraint": replace(BASE, forget_loss="constraint"),
    "ascent": replace(BASE, forget_loss="ascent"),
    "no distillation": replace(BASE, distill_weight=0.0),
    "both towers": replace(BASE, trainable="all"),
    "plain unlearning": replace(
        BASE,
        rank="similarity",
        word_filter=False,
        local_words=False,
        forget_loss="ascent",
    ),
}
MEASURES = ("success", "accuracy_loss", "target_accuracy_loss", "precision", "seconds")


def main() -> int:
    """Run the ablation and print one JSON object."""
    options = _options()
    start = time.perf_counter()
    runtime = Runtime(device=options.device, batch_size=256)
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in range(options.seeds):
        mini = digits(seed)
        reference = train_reference(mini, seed=seed, runtime=runtime)
        for planted in options.planted:
            attack = checkerboard(mini, count=planted)
            drill = train_victim(mini, reference, attack, seed=seed, runtime=runtime)
            for name in options.variants:
                told = _one(VARIANTS[name], drill, seed=seed, runtime=runtime)
                own = rows.setdefault(str(planted), {}).setdefault(name, [])
                own.append(told)
                print(f"{seed} {planted} {name}: {told}", file=sys.stderr, flush=True)
    table = {
        planted: {name: _summary(runs) for name, runs in found.items()}
        for planted, found in rows.items()
    }
    result = {
        "recipe": "paper/ubt-ablation",
        "seconds": round(time.perf_counter() - start, 1),
        "claims": [],
        "facts": {"table": table, "machine": asdict(machine()), "commit": commit()},
    }
    print(json.dumps(result))
    return 0


def _one(method: UBT, drill: Drill, *, seed: int, runtime: Runtime) -> dict[str, float]:
    before = drill.measure(drill.victim, runtime=runtime)
    repair = method.repair(
        drill.victim,
        data=drill.data,
        reference=drill.reference,
        seed=seed,
        runtime=runtime,
    )
    after = drill.measure(repair.model, runtime=runtime)
    isolated = repair.chosen("isolated", drill.data.ids)
    own = (before.target_class_accuracy or 0.0, after.target_class_accuracy or 0.0)
    return {
        "success_before": success(before),
        "success": success(after),
        "accuracy_loss": before.clean_accuracy - after.clean_accuracy,
        "target_accuracy_loss": own[0] - own[1],
        "precision": purity(isolated, drill.is_poison) if isolated.any() else 0.0,
        "found": float(repair.changed),
        "seconds": repair.provenance.seconds,
    }


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, object]:
    told: dict[str, object] = {
        "n": len(runs),
        "found": sum(run["found"] for run in runs) / len(runs),
        "victims_valid": sum(run["success_before"] >= 0.8 for run in runs),
    }
    for name in MEASURES:
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        told[name] = [round(statistics.fmean(values), 4), round(spread, 4)]
    return told


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--planted", type=int, nargs="+", default=[30, 90])
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
