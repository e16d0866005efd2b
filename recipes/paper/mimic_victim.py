"""A clean and a backdoored ResNet-18 encoder on CIFAR-10, for one GPU.

SimCLR for 100 epochs and BadEncoder for 40: a tenth and a fifth of the published
lengths. Reads ``train`` and ``test`` as npz or parquet from ``--data``, and leaves both
encoders in ``--work`` for the recipes beside this one. A run that was killed goes on.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bezoar.bench.encoder_recipe import Setting, named, run
from bezoar.models import save_encoder, simclr
from bezoar.train import train_simclr


def body(setting: Setting) -> None:
    """Train, attack, measure and save."""
    size, seed = setting.size, setting.seed
    folders = {}
    for name in ("clean", "backdoored"):
        folders[name] = setting.work / f"{name}-{seed}"
        folders[name].mkdir(exist_ok=True)
    clean = train_simclr(
        simclr(size.network, seed=seed),
        data=setting.train,
        settings=size.training,
        seed=seed,
        runtime=replace(setting.runtime, work_dir=folders["clean"]),
    )
    bad = size.attack.attack(
        clean,
        data=setting.train,
        references=setting.references(clean),
        seed=seed,
        runtime=replace(setting.runtime, work_dir=folders["backdoored"]),
    )
    save_encoder(clean, setting.work / f"clean-{seed}.safetensors")
    save_encoder(bad, setting.work / f"backdoored-{seed}.safetensors")
    rows = setting.measured({"clean": clean, "teacher": bad})["cifar10"]
    teacher, floor = named(rows, "teacher"), named(rows, "clean")
    assert teacher.attack_success_rate is not None
    assert floor.attack_success_rate is not None
    setting.claims.at_least("teacher_success", teacher.attack_success_rate, 0.98)
    lost = floor.clean_accuracy - teacher.clean_accuracy
    setting.claims.at_most("accuracy_lost_to_the_attack", lost, 0.02)
    setting.claims.reported("floor", floor.attack_success_rate)


if __name__ == "__main__":
    sys.exit(run("mimic_victim", body, __doc__))
