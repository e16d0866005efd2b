"""From a backdoored encoder to a student without the backdoor, on digits."""

from dataclasses import replace

import pytest
import torch

from bezoar.attacks import BadEncoder
from bezoar.bench.tiny_encoders import pretrained, typical
from bezoar.data import digit_images
from bezoar.metrics import EncoderTask, evaluate_encoders
from bezoar.repair import MIMIC
from bezoar.runtime import Runtime, generator

TARGET = 1


@pytest.mark.slow
def test_a_student_leaves_the_backdoor_behind() -> None:
    data = digit_images(size=16)
    order = torch.randperm(len(data), generator=generator(0, "flow"))
    own, clean_set, test = (
        data.take(order[i:j]) for i, j in ((0, 900), (900, 1347), (1347, 1797))
    )
    runtime = Runtime()
    clean = pretrained(own, epochs=15, seed=0, runtime=runtime)
    attack = replace(BadEncoder.tiny(), patch_size=3, epochs=20, batch_size=64)
    place = typical(own, clean, target=TARGET)
    teacher = attack.attack(
        clean, data=own, references=own.images[place : place + 1], runtime=runtime
    )
    method = replace(MIMIC.tiny(), epochs=20)
    student = method.repair(teacher, data=clean_set, runtime=runtime).model
    control = replace(
        method,
        initialization="teacher",
        epochs=5,
        batch_size=64,
        lr=3e-3,
        clone_weight=10.0,
    )
    kept = control.repair(teacher, data=clean_set, runtime=runtime).model
    encoders = {"clean": clean, "teacher": teacher, "student": student, "kept": kept}
    task = EncoderTask(name="digits", train=own, test=test, target_class=TARGET)
    rows = evaluate_encoders(encoders, tasks=[task], attack=attack, runtime=runtime)
    success = {row.encoder: row.attack_success_rate or 0.0 for row in rows}
    assert success["teacher"] - success["student"] >= 0.3, success
    assert success["kept"] - success["student"] >= 0.2, success
