"""MIMIC against CTRL, waves in the colours of 1 % of the images, for one GPU.

SimCLR is trained for 100 epochs on poisoned images; MIMIC gets 2,000 clean ones. The
clean encoder is that of ``mimic_victim`` in ``--work``. How far CTRL gets in so few
epochs is not known: where its success does not reach half, nothing is judged.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

from bezoar.attacks import CTRL
from bezoar.bench.encoder_recipe import TARGET, Setting, named, run
from bezoar.metrics import evaluate_encoders
from bezoar.models import simclr
from bezoar.repair import EncoderFineTuning
from bezoar.train import train_simclr

_TOOK = 0.5  # least attack success of a teacher that is worth a repair


def body(setting: Setting) -> None:
    """Pre-train on poison, repair in two ways and measure."""
    size, seed = setting.size, setting.seed
    small = setting.train.images.shape[-1] < 32
    attack = replace(CTRL.tiny() if small else CTRL(), target_class=TARGET)
    folder = setting.work / f"ctrl-{seed}"
    folder.mkdir(exist_ok=True)
    teacher = train_simclr(
        simclr(size.network, seed=seed),
        data=attack.poison(setting.train, seed=seed).data,
        settings=size.training,
        seed=seed,
        runtime=replace(setting.runtime, work_dir=folder),
    )
    clean, _ = setting.victims()
    repairs = {
        "mimic": size.repair.repair(
            teacher, data=setting.clean, seed=seed, runtime=setting.runtime
        ),
        "fine-tuning": EncoderFineTuning(epochs=min(100, size.repair.epochs)).repair(
            teacher, data=setting.clean, seed=seed, runtime=setting.runtime
        ),
    }
    rows = evaluate_encoders(
        {
            "clean": clean,
            "teacher": teacher,
            "untrained": simclr(size.network, seed=seed + 1000),
            **{name: repair.model for name, repair in repairs.items()},
        },
        tasks=setting.tasks()[:1],
        attack=attack,
        runtime=setting.runtime,
    )
    claims = setting.claims
    claims.facts["measured"] = [asdict(row) for row in rows]
    success = {row.encoder: row.attack_success_rate or 0.0 for row in rows}
    for name in ("clean", "teacher", "mimic", "fine-tuning"):
        claims.reported(f"{name}_success", success[name])
        claims.reported(f"{name}_accuracy", named(rows, name).clean_accuracy)
    if success["teacher"] < _TOOK:
        claims.reported("verdict", "the attack did not take; nothing is judged")
        return
    above = success["mimic"] - success["clean"]
    claims.at_most("student_success_above_floor", above, 0.05)
    lost = named(rows, "teacher").clean_accuracy - named(rows, "mimic").clean_accuracy
    claims.at_most("student_accuracy_lost", lost, 0.0635)


if __name__ == "__main__":
    sys.exit(run("mimic_ctrl", body, __doc__))
