"""What MIMIC's parts are worth: one run of 250 epochs each, for one GPU.

Reads what ``mimic_victim`` left in ``--work``. The table is printed as it falls, line
by line, so that a run that is cut off is not lost; nothing is gated but the control.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import torch

from bezoar.bench.encoder_recipe import Setting, named, run
from bezoar.data import ImageData
from bezoar.repair import MIMIC

_SHARES = (0.25, 0.5, 1.0, 2.0)  # of the defender's images: 1, 2, 4 and 8 %


def body(setting: Setting) -> None:
    """Leave out one part after another; then change how many clean images there are."""
    clean, teacher = setting.victims()
    base = replace(setting.size.repair, epochs=setting.size.ablation_epochs)
    for name, (method, data) in _arms(setting, base).items():
        repair = method.repair(
            teacher, data=data, seed=setting.seed, runtime=setting.runtime
        )
        encoders = {"clean": clean, "teacher": teacher, name: repair.model}
        tasks = setting.measured(encoders)
        row = {
            "arm": name,
            "cosine": repair.figures["cosine"],
            **{task: asdict(named(rows, name)) for task, rows in tasks.items()},
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        setting.claims.facts[name] = row
        success = named(tasks["cifar10"], name).attack_success_rate or 0.0
        if name == "from teacher":
            setting.claims.at_least("control_from_teacher_success", success, 0.5)


def _arms(setting: Setting, base: MIMIC) -> dict[str, tuple[MIMIC, ImageData]]:
    none = {"attention_weight": 0.0, "information_weight": 0.0}
    methods = {
        "teacher's information": base,
        "student's information": replace(base, information_source="student"),
        "uniform": replace(base, information_source="uniform"),
        "sum over places": replace(
            base,
            attention_reduction="sum",
            attention_weight=20.75,
            information_weight=207.5,
        ),
        "no attention": replace(base, **none),  # type: ignore[arg-type]
        "no clone term": replace(base, clone_weight=0.0),
        "no contrastive term": replace(base, contrastive_weight=0.0),
        "from teacher": replace(base, initialization="teacher"),
    }
    arms = {name: (method, setting.clean) for name, method in methods.items()}
    for share in _SHARES:
        count = round(share * setting.size.clean)
        few = setting.train.take(torch.arange(count))
        # As many steps for each share.
        epochs = max(1, round(base.epochs / share))
        arms[f"{count} images"] = (replace(base, epochs=epochs), few)
    foreign = setting.train.subset(setting.train.labels < 5)
    arms["images of five classes"] = (
        base,
        foreign.take(torch.arange(min(setting.size.clean, len(foreign)))),
    )
    poisoned = setting.clean.images.clone()
    every = slice(None, None, 20)
    poisoned[every] = setting.size.attack.apply(poisoned[every])
    arms["5 % with the trigger"] = (base, replace(setting.clean, images=poisoned))
    return arms


if __name__ == "__main__":
    sys.exit(run("mimic_ablation", body, __doc__))
