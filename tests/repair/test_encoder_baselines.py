"""What MIMIC is compared with."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import noise_images
from bezoar.errors import InputError, ModelError
from bezoar.models import simclr
from bezoar.repair import BCU, Distillation, EncoderFineTuning, LipschitzPruning
from bezoar.repair.bcu import redraw
from bezoar.repair.lipschitz_pruning import channel_bounds
from bezoar.runtime import Runtime

FLOAT = Runtime(dtype=torch.float32)
DATA = noise_images(64, size=16)
TEACHER = simclr("tiny", seed=5)


def moved(one: nn.Module, two: nn.Module) -> float:
    mine, theirs = dict(one.named_parameters()), dict(two.named_parameters())
    return max((p - theirs[n]).abs().max().item() for n, p in mine.items())


def test_distillation_brings_the_features_closer() -> None:
    method = Distillation(epochs=6, batch_size=32)
    found = method.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert found.history[-1]["clone"] < found.history[1]["clone"]
    assert found.history[-1]["attention"] < found.history[1]["attention"]
    assert found.history[-1]["contrastive"] == 0


def test_terms_that_are_left_out() -> None:
    short = {"epochs": 1, "batch_size": 32}
    attention = replace(Distillation.attention_only(), **short)  # type: ignore[arg-type]
    alone = replace(Distillation.contrastive_only(), **short)  # type: ignore[arg-type]
    found = attention.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert found.history[-1]["loss"] == pytest.approx(found.history[-1]["attention"])
    found = alone.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert found.history[-1]["loss"] == pytest.approx(found.history[-1]["contrastive"])
    # Without a term that asks the teacher, its weights do not matter.
    other = alone.repair(simclr("tiny", seed=6), data=DATA, runtime=FLOAT)
    assert moved(found.model, other.model) == 0


def test_fine_tuning_starts_from_the_encoder_and_says_so() -> None:
    still = EncoderFineTuning(epochs=1, batch_size=32, lr=1e-12)
    found = still.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert moved(found.model, TEACHER) < 1e-9
    assert "backdoor" in found.health[0]
    moving = replace(still, lr=1e-2).repair(TEACHER, data=DATA, runtime=FLOAT)
    assert moved(moving.model, TEACHER) > 1e-4


def test_a_channel_that_is_a_hundred_times_louder_is_silenced_and_no_other() -> None:
    net = simclr("tiny", seed=5)
    method = LipschitzPruning(threshold=5.0)  # 720 random channels lie within 4
    assert method.repair(net).status == "nothing found"
    name = "backbone.model.layer3.0.bn2"
    with torch.no_grad():
        net.get_submodule(name).weight[7] *= 100  # type: ignore[index, operator]
    found = method.repair(net)
    assert found.status == "repaired"
    zero = {
        (n, i)
        for n, p in found.model.named_parameters()
        if ".bn" in n and n.endswith("weight")
        for i in (p == 0).nonzero().flatten().tolist()
    }
    assert zero == {(f"{name}.weight", 7)}
    assert found.model.get_submodule(name).bias[7] == 0  # type: ignore[index]
    assert found.figures["silenced_rate"] == pytest.approx(1 / 720)


def test_a_clean_network_is_handed_back_by_pruning() -> None:
    found = LipschitzPruning(threshold=5.0).repair(TEACHER)
    assert found.model is TEACHER
    assert not found.changed


def test_bounds_hold_for_every_input() -> None:
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
        conv.weight.normal_(generator=torch.Generator().manual_seed(0))
    bounds = channel_bounds(conv.weight, norm)
    plain = [
        torch.linalg.svdvals(conv.weight[k].detach().reshape(3, 9))[0] * abs(g)
        for k, g in enumerate(norm.weight.tolist())
    ]
    assert bounds.tolist() == pytest.approx([float(p) for p in plain], rel=1e-4)


def test_pruning_needs_batch_norms() -> None:
    with pytest.raises(ModelError, match="batch norms behind"):
        LipschitzPruning().repair(nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_share_of_the_weights_is_drawn_anew(rate: float) -> None:
    own, fresh = (
        simclr("tiny", seed=s).backbone.get_submodule("model.layer3") for s in (1, 2)
    )
    before = {n: p.clone() for n, p in own.named_parameters()}
    redraw(own, fresh, rate=rate, stream=torch.Generator().manual_seed(0))
    new: dict[str, Tensor] = dict(fresh.named_parameters())
    for name, weight in own.named_parameters():
        changed = weight != before[name]
        assert weight[changed].equal(new[name][changed])
        is_drawn = "conv" in name
        share = changed.float().mean().item()
        assert share == pytest.approx(rate if is_drawn else 0.0, abs=0.02)


def test_bcu_learns_the_features_again() -> None:
    found = BCU(epochs=6, batch_size=32).repair(TEACHER, data=DATA, runtime=FLOAT)
    assert found.history[-1]["clone"] < found.history[1]["clone"]
    with pytest.raises(InputError, match="one rate for each of 4"):
        BCU(rates=(0.1, 0.2)).repair(TEACHER, data=DATA)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Distillation(attention_weight=0, clone_weight=0),
        lambda: Distillation(lr=0.0),
        lambda: Distillation(holdout_rate=1.0),
        lambda: EncoderFineTuning(epochs=0),
        lambda: EncoderFineTuning(temperature=0.0),
        lambda: LipschitzPruning(threshold=0.0),
        lambda: BCU(rates=(1.5,)),
        lambda: BCU(epochs=0),
    ],
)
def test_settings_that_make_no_sense(wrong: type) -> None:
    with pytest.raises(InputError, match="expected"):
        wrong()
