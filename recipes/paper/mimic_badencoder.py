"""MIMIC against BadEncoder at the published length, beside other repairs, for one GPU.

Reads what ``mimic_victim`` left in ``--work``. The defender has 2,000 of the training
images, without labels. Where the attack did not reach 98 % the run is void.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import torch
from torch import nn

from bezoar.bench.encoder_recipe import Setting, named, run
from bezoar.bench.reference.mimic import plain_loss
from bezoar.models import SimCLR, simclr, stage_names
from bezoar.repair import MIMIC, Distillation, EncoderFineTuning, LipschitzPruning
from bezoar.results import Repair

_STEPS = 50


def body(setting: Setting) -> None:
    """Repair the backdoored encoder in several ways and measure all of them."""
    clean, teacher = setting.victims()
    repairs = _repairs(setting, teacher)
    encoders = {name: repair.model for name, repair in repairs.items()}
    rows = setting.measured({"clean": clean, "teacher": teacher, **encoders})["cifar10"]
    success = {row.encoder: row.attack_success_rate or 0.0 for row in rows}
    accuracy = {row.encoder: row.clean_accuracy for row in rows}
    claims = setting.claims
    claims.at_least("teacher_success", success["teacher"], 0.98)
    above = success["mimic"] - success["clean"]
    claims.at_most("student_success_above_floor", above, 0.05)
    lost = accuracy["teacher"] - accuracy["mimic"]
    claims.at_most("student_accuracy_lost", lost, 0.0635)
    claims.at_most(
        "success_above_distillation", success["mimic"] - success["distillation"], 0.0
    )
    claims.at_most(
        "accuracy_below_distillation", accuracy["distillation"] - accuracy["mimic"], 0.0
    )
    claims.at_least("control_from_teacher_success", success["from teacher"], 0.5)
    recovered = named(rows, "mimic").knowledge_recovery
    claims.reported(
        "knowledge_recovery", recovered if recovered is not None else "none"
    )
    epochs = setting.size.repair.epochs
    steps = epochs * (setting.size.clean // setting.size.repair.batch_size)
    claims.facts["seconds"] = {name: dict(r.seconds) for name, r in repairs.items()}
    claims.facts["ms_per_step"] = 1000 * repairs["mimic"].seconds["distil"] / steps
    claims.facts["ms_per_plain_step"] = plain_milliseconds(setting, teacher)
    claims.facts["layer_weights"] = {
        name: [row["weight"] for row in repairs[name].tables["layer weights"]]
        for name in ("mimic", "mimic, student's information")
    }


def _repairs(setting: Setting, teacher: SimCLR) -> dict[str, Repair]:
    method, size = setting.size.repair, setting.size
    methods: dict[str, MIMIC | Distillation | EncoderFineTuning | LipschitzPruning] = {
        "mimic": method,
        "mimic, student's information": replace(method, information_source="student"),
        "from teacher": replace(
            method, initialization="teacher", epochs=size.ablation_epochs
        ),
        "distillation": size.distillation(),
        "fine-tuning": size.fine_tuning(),
        "lipschitz pruning": LipschitzPruning(),
    }
    found = {}
    for name, repair in methods.items():
        folder = setting.work / f"{name.replace(' ', '-')}-{setting.seed}"
        folder.mkdir(exist_ok=True)
        found[name] = repair.repair(
            teacher,
            data=setting.clean,
            seed=setting.seed,
            runtime=replace(setting.runtime, work_dir=folder),
        )
    return found


def plain_milliseconds(setting: Setting, teacher: SimCLR) -> float:
    """Return what a step of the published loop takes, without leak and views."""
    device = setting.runtime.device
    student = simclr(setting.size.network, seed=1).to(device).train()
    twin = SimCLR(teacher.backbone, nn.Identity()).to(device).eval().backbone
    layers = stage_names(twin)
    adam = torch.optim.Adam(student.parameters(), lr=1e-2)
    count = setting.size.repair.batch_size
    images = setting.clean.images[:count].to(device).float() / 255
    begin = 0.0
    for step in range(_STEPS + 5):
        if step == 5:  # after the warm-up
            begin = _now(device)
        loss = plain_loss(
            student.backbone,
            student.projector,
            twin,
            (images, images.flip(3)),
            layers,
            [3500.0] * len(layers),
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    seconds = _now(device) - begin
    twin.cpu()
    return 1000 * seconds / _STEPS


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(run("mimic_badencoder", body, __doc__))
