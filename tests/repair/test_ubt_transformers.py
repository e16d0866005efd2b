"""A CLIP of transformers is opened, poisoned, repaired, saved and opened again."""

from pathlib import Path

import pytest
import torch

from bezoar.attacks import BadNets, poison_pairs
from bezoar.data import ImageData, PairData, digit_images
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder, load_dual_encoder, save_dual_encoder
from bezoar.repair import UBT
from bezoar.runtime import Runtime, generator
from bezoar.train import ClipTraining, train_clip
from tests.models.test_clip_files import hub_clip

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = tuple((f"a {name}",) for name in NAMES)
RUNTIME = Runtime(batch_size=256)


def told(data: ImageData) -> PairData:
    """The digits with captions that the tokenizer of letters can hold."""
    words = ("a", "the", "my")
    captions = [
        f"{words[row % 3]} {NAMES[label]}"
        for row, label in enumerate(data.labels.tolist())
    ]
    return PairData(
        images=data.images,
        captions=tuple(captions),
        ids=data.ids,
        labels=data.labels,
        class_names=NAMES,
    )


@pytest.mark.slow
def test_a_clip_of_transformers_forgets_a_backdoor(tmp_path: Path) -> None:
    hub_clip(tmp_path / "public")
    digits = digit_images(size=32)
    order = torch.randperm(len(digits), generator=generator(0, "hub"))
    pairs, test = told(digits.take(order[:1400])), digits.take(order[1400:])
    reference = train_clip(
        load_dual_encoder(str(tmp_path / "public")),
        data=pairs,
        settings=ClipTraining(epochs=15, lr=2e-3),
        runtime=RUNTIME,
    )
    attack = BadNets(
        poison_rate=0.05, target_class=7, size=5, offset=(1, 1), pattern="checker"
    )
    planted = poison_pairs(pairs, attack=attack, captions=("a seven",), seed=0)
    victim = train_clip(
        reference,
        data=planted.data,
        settings=ClipTraining(epochs=8, lr=1e-3),
        runtime=RUNTIME,
    )
    repair = UBT.mini().repair(
        victim, data=planted.data, reference=reference, runtime=RUNTIME
    )
    assert isinstance(repair.model, DualEncoder)
    save_dual_encoder(repair.model, tmp_path / "repaired")
    again = load_dual_encoder(str(tmp_path / "repaired"))
    before, after = (
        evaluate(zero_shot_classifier(model, PROMPTS), test, attack=attack)
        for model in (victim, again)
    )
    assert before.attack_success_rate is not None
    assert after.attack_success_rate is not None
    assert before.attack_success_rate > 0.8
    assert after.attack_success_rate < 0.1
    assert after.clean_accuracy > before.clean_accuracy - 0.05
    assert repair.status == "repaired"
