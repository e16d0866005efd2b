"""Training of image-text models: losses with known values, schedules, a small run."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from bezoar.data import PairData, digit_pairs, digit_prompts
from bezoar.errors import DivergedError, InputError
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder, TinyClip, WordTokenizer, fingerprint
from bezoar.runtime import Progress, Runtime
from bezoar.train import (
    ClipTraining,
    PairBatch,
    clip_loss,
    contrast,
    decay_groups,
    train_clip,
    unimodal_loss,
)

WORDS = WordTokenizer.from_captions([text for own in digit_prompts() for text in own])


def test_equal_vectors_cost_ln_of_the_batch() -> None:
    same = nn.functional.normalize(torch.ones(64, 8), dim=1)
    for loss in (clip_loss, unimodal_loss):
        found = loss(same, same, log_scale=torch.tensor(2.0)).item()
        assert found == pytest.approx(4.158883, abs=1e-5)


def test_the_loss_is_the_mean_of_both_directions() -> None:
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scale = torch.tensor(math.log(3.0))  # logits are [[3, 3], [0, 0]]
    there = math.log(2)
    back = math.log(1 + math.exp(-3)) / 2 + math.log(1 + math.exp(3)) / 2
    found = clip_loss(image, text, log_scale=scale).item()
    assert found == pytest.approx((there + back) / 2, abs=1e-6)
    one_way = unimodal_loss(image, text, log_scale=scale).item()
    assert one_way == pytest.approx(there, abs=1e-6)


def test_the_default_schedule_rises_once_and_falls_to_zero() -> None:
    settings = ClipTraining(lr=1.0, epochs=2)
    rates = [settings.rate(s, steps_per_epoch=50) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_the_official_schedule_is_that_of_the_released_code() -> None:
    clean = ClipTraining(lr=1.0, epochs=10, warmup_steps=50, schedule="official")
    assert clean.rate(0, steps_per_epoch=1562) == pytest.approx(0.977, abs=5e-4)
    assert clean.rate(15619, steps_per_epoch=1562) == pytest.approx(0.0246, abs=5e-5)
    attack = ClipTraining(lr=1.0, epochs=5, warmup_steps=10_000, schedule="official")
    assert attack.rate(0, steps_per_epoch=3906) == pytest.approx(0.391, abs=5e-4)
    assert attack.rate(19_530 - 3906, steps_per_epoch=3906) == pytest.approx(0)
    assert attack.rate(19_529, steps_per_epoch=3906) == pytest.approx(0.360, abs=5e-4)


def test_norms_biases_and_the_scale_do_not_decay() -> None:
    model = TinyClip(WORDS, resolution=24)
    names = {id(p): n for n, p in model.named_parameters()}
    matrices, others = decay_groups(model.parameters(), weight_decay=0.1)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0)
    free = {names[id(p)] for p in others["params"]}
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= free
    assert all(n.endswith(("bias", "weight", "scale")) for n in free)
    assert len(free) + len(matrices["params"]) == len(names)


def trained(model: TinyClip, data: PairData, **settings: object) -> TinyClip:
    told = ClipTraining(**{"epochs": 1, "batch_size": 8, **settings})  # type: ignore[arg-type]
    result = train_clip(model, data=data, settings=told)
    assert isinstance(result, TinyClip)
    return result


def test_training_changes_a_copy_and_follows_the_seed() -> None:
    data, model = digit_pairs("victim", num_pairs=20), TinyClip(WORDS, resolution=24)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    one, same = (trained(model, data, augment="crop_flip") for _ in range(2))
    assert torch.get_rng_state().equal(state)
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name
        assert one.state_dict()[name].equal(same.state_dict()[name]), name
    assert model.training
    assert not one.training
    assert all(p.requires_grad and p.grad is None for p in one.parameters())
    changed = [
        not p.equal(q)
        for p, q in zip(one.parameters(), model.parameters(), strict=True)
    ]
    assert all(changed)


@pytest.mark.parametrize("trainable", ["all", "image"])
def test_a_killed_training_goes_on_to_the_same_model(
    tmp_path: Path, trainable: Literal["all", "image"]
) -> None:
    data = digit_pairs("victim", num_pairs=32)
    settings = ClipTraining(
        epochs=3, batch_size=16, augment="crop_flip", trainable=trainable
    )
    start = TinyClip(WORDS, resolution=24)
    straight = train_clip(start, data=data, settings=settings)
    seen: list[int] = []

    def kill(progress: Progress) -> None:
        seen.append(progress.done)
        if progress.done == 2:
            raise KeyboardInterrupt

    runtime = Runtime(work_dir=tmp_path, progress=kill)
    with pytest.raises(KeyboardInterrupt):
        train_clip(start, data=data, settings=settings, runtime=runtime)
    resumed = train_clip(start, data=data, settings=settings, runtime=runtime)
    assert seen == [1, 2, 3]
    assert fingerprint(resumed) == fingerprint(straight)


def test_only_the_usual_objective_is_shared_or_kept(tmp_path: Path) -> None:
    def own(model: DualEncoder, batch: PairBatch) -> torch.Tensor:
        return contrast(model, batch) * 0.5

    data, start = digit_pairs("victim", num_pairs=8), TinyClip(WORDS, resolution=24)
    settings = ClipTraining(epochs=1, batch_size=8)
    with pytest.raises(InputError, match="an objective of its own in one process"):
        train_clip(start, data=data, objective=own, runtime=Runtime(distributed=True))
    runtime = Runtime(work_dir=tmp_path)
    train_clip(start, data=data, settings=settings, objective=own, runtime=runtime)
    assert not list(tmp_path.iterdir())


def test_the_text_tower_can_stay_as_it_was() -> None:
    data, model = digit_pairs("victim", num_pairs=20), TinyClip(WORDS, resolution=24)
    after = trained(model, data, trainable="image")
    own = {id(p) for p in model.image_parameters()}
    for before, now in zip(model.parameters(), after.parameters(), strict=True):
        assert before.equal(now) is (id(before) not in own)


def test_the_scale_stays_in_its_range() -> None:
    data, model = digit_pairs("victim", num_pairs=16), TinyClip(WORDS, resolution=24)
    with torch.no_grad():
        model.log_scale.fill_(4.7)
    after = trained(model, data, lr=1e-6)
    assert after.log_scale.item() <= 4.6052


def test_a_loss_that_is_not_finite_is_told() -> None:
    data, model = digit_pairs("victim", num_pairs=16), TinyClip(WORDS, resolution=24)
    with torch.no_grad():
        model.ln_final.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="epoch 1"):
        trained(model, data)
    with pytest.raises(InputError, match="at least 2 pairs"):
        train_clip(model, data=data.take(torch.tensor([0])))
    with pytest.raises(InputError, match="batch_size of at least 2"):
        ClipTraining(batch_size=1)


def coloured(n: int, *, seed: int) -> PairData:
    """Noise with more of one colour, and a caption that names it."""
    names = ("red", "green", "blue")
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 128, (n, 3, 24, 24), generator=stream)
    labels = torch.arange(n) % 3
    images[torch.arange(n), labels] += 120
    return PairData(
        images=images.to(torch.uint8),
        captions=tuple(f"a {names[i]} thing" for i in labels.tolist()),
        ids=tuple(map(str, range(n))),
        labels=labels,
        class_names=names,
    )


def test_a_short_training_learns_colours() -> None:
    seen: list[Progress] = []
    data = coloured(240, seed=0)
    words = WordTokenizer.from_captions(data.captions)
    model = train_clip(
        TinyClip(words, resolution=24),
        data=data,
        settings=ClipTraining(epochs=3, batch_size=32),
        runtime=Runtime(progress=seen.append),
    )
    assert [p.done for p in seen] == [1, 2, 3]
    assert seen[2].metrics["loss"] < seen[0].metrics["loss"]
    prompts = [[f"a {name} thing"] for name in data.class_names]
    test = coloured(60, seed=1).image_data
    result = evaluate(zero_shot_classifier(model, prompts), test)
    assert result.clean_accuracy > 0.95, "chance is 0.33"
