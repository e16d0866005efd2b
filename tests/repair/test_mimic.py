"""MIMIC on networks of random weights: what it promises about them."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from bezoar.bench.reference.mimic import plain_loss
from bezoar.data import ImageData, noise_images
from bezoar.errors import DivergedError, InputError, ModelError
from bezoar.models import SimCLR, simclr, stage_names
from bezoar.models.empty import empty_copy
from bezoar.models.maps import as_map
from bezoar.repair import MIMIC
from bezoar.runtime import Progress, Runtime
from bezoar.train import EncoderProtocol
from bezoar.train.distillation import lesson
from bezoar.train.teacher import Teacher

FLOAT = Runtime(dtype=torch.float32)
QUICK = MIMIC(
    epochs=2,
    batch_size=32,
    lr=3e-3,
    information_epochs=3,
    information_hidden=32,
    information_pool=4,
)
DATA = noise_images(80, size=16)
TEACHER = simclr("tiny", seed=5)


class Stopped(Exception):
    pass


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        changed: Tensor = tokens + self.linear(tokens).tanh()
        return changed


class Transformer(nn.Module):
    """Sixteen patches and a class token through four blocks."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 12, 4, stride=4)
            self.token = nn.Parameter(torch.randn(1, 1, 12))
            self.blocks = nn.Sequential(*(Block() for _ in range(4)))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1)
        vectors: Tensor = self.blocks(tokens)[:, 0]
        return vectors


def state(net: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(one: nn.Module, two: nn.Module) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return all(value.equal(theirs[name]) for name, value in mine.items())


def test_one_pass_has_the_slope_of_three_passes() -> None:
    double = Runtime(dtype=torch.float64)
    student, teacher = simclr("tiny", seed=1).double(), TEACHER.backbone
    layers = stage_names(teacher)
    weights = dict(zip(layers, (1000.0, 2500.0, 4000.0, 6500.0), strict=True))
    guide = Teacher(
        teacher, layers=layers, power=2, images=DATA.images[:4], runtime=double
    )
    stream = torch.Generator().manual_seed(0)
    views = torch.rand(2, 16, 3, 16, 16, generator=stream, dtype=torch.float64)
    protocol = EncoderProtocol(
        epochs=1, batch_size=16, lr=1, weight_decay=0, clone_weight=1.0
    )
    loss, parts = lesson(
        student,
        (views[0], views[1]),
        guide=guide,
        weights=weights,
        protocol=protocol,
        dtype=torch.float64,
    )
    ours = torch.autograd.grad(loss, list(student.parameters()))
    plain = plain_loss(
        student.backbone,
        student.projector,
        guide.net,
        (views[0], views[1]),
        layers,
        list(weights.values()),
    )
    theirs = torch.autograd.grad(plain, list(student.parameters()))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    assert parts[0] == loss
    scale = max(g.norm() for g in theirs)
    for one, two in zip(ours, theirs, strict=True):
        assert (one - two).norm() < 1e-9 * max(two.norm(), 1e-3 * scale)


def test_each_term_has_its_weight() -> None:
    guide = Teacher(
        TEACHER.backbone,
        layers=("model.layer4",),
        power=2,
        images=DATA.images[:4],
        runtime=FLOAT,
    )
    first, second = DATA.images[:64].float().div(255).split(32)
    protocol = EncoderProtocol(
        epochs=1,
        batch_size=32,
        lr=1,
        weight_decay=0,
        contrastive_weight=0.5,
        clone_weight=3.0,
    )
    net = simclr("tiny", seed=1).eval()
    told = {"guide": guide, "weights": {"model.layer4": 7.0}}
    loss, parts = lesson(net, (first, second), protocol=protocol, **told)  # type: ignore[arg-type]
    _, contrastive, clone, attention = parts
    assert loss.item() == pytest.approx(
        float(0.5 * contrastive + 3 * clone + attention)
    )
    plain = {"guide": guide, "weights": {"model.layer4": 1.0}}
    _, others = lesson(net, (first, second), protocol=protocol, **plain)  # type: ignore[arg-type]
    assert attention.item() == pytest.approx(7 * float(others[3]), rel=1e-5)


def test_the_student_learns_what_the_teacher_says() -> None:
    method = replace(QUICK, epochs=8, holdout_rate=0.2)
    found = method.repair(TEACHER, data=DATA, runtime=FLOAT)
    first, last = found.history[1], found.history[-1]
    assert last["attention"] < first["attention"]
    assert last["clone"] < first["clone"]
    assert last["held_out_cosine"] > first["held_out_cosine"]
    assert found.figures["held_out_cosine"] == last["held_out_cosine"]
    assert len(found.image_ids["held out"]) == 16
    assert not set(found.image_ids["held out"]) & set(found.image_ids["clean"])
    rows = found.tables["layer weights"]
    weights = [row["weight"] for row in rows]
    assert sum(weights) == pytest.approx(14000)  # type: ignore[arg-type]
    assert [row["layer"] for row in rows] == [f"model.layer{i}" for i in (1, 2, 3, 4)]
    assert "model.layer1 held out" in found.tables["information"][-1]
    assert {"information", "distil"} == set(found.seconds)
    assert found.before["held_out_cosine"] == 1


def test_it_claims_no_find_on_a_clean_encoder() -> None:
    found = QUICK.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert found.status == "repaired"
    assert "does not tell whether" in found.summary
    assert isinstance(found.model, SimCLR)
    assert not found.model.training


def test_the_student_is_empty_and_keeps_the_normalisation() -> None:
    other = simclr("tiny", seed=2, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    fresh, how = empty_copy(other, seed=3)
    assert how == "rebuilt"
    assert isinstance(fresh, SimCLR)
    assert state(fresh)["backbone.mean"].equal(state(other)["backbone.mean"])
    for own, theirs in zip(fresh.parameters(), other.parameters(), strict=True):
        assert not own.equal(theirs) or own.unique().numel() == 1
    net = Transformer()
    reset, way = empty_copy(net, seed=0)
    assert way == "reset"
    assert isinstance(reset, Transformer)
    assert not reset.token.equal(net.token)
    with pytest.raises(ModelError, match="own weights"):
        empty_copy(fresh, seed=3)


def test_a_reset_forgets_the_statistics_of_batch_norms() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net(torch.rand(2, 3, 8, 8))
    fresh, _ = empty_copy(net, seed=0)
    assert state(fresh)["1.running_mean"].abs().max() == 0
    assert state(fresh)["1.num_batches_tracked"] == 0


def test_a_transformer_is_followed_at_four_depths_without_its_class_token() -> None:
    found = QUICK.repair(Transformer(), data=DATA, runtime=FLOAT)
    names = [row["layer"] for row in found.tables["layer weights"]]
    assert names == [f"blocks.{i}" for i in range(4)]
    assert isinstance(found.model, Transformer)  # the projector is dropped
    assert found.provenance.settings["student"] == "reset"
    tokens = torch.arange(17.0).view(1, 17, 1).expand(2, -1, 3)
    grid = as_map(tokens, count=2, layer="x")
    assert grid[0, 0].flatten().equal(torch.arange(1.0, 17.0))
    assert as_map(tokens.transpose(0, 1), count=2, layer="x").equal(grid)


@pytest.mark.parametrize("shape", [(2, 3), (2, 60, 3), (3, 4, 2, 2)])
def test_a_layer_without_a_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="'x'"):
        as_map(torch.zeros(shape), count=2, layer="x")


def test_the_teacher_is_as_it_was_even_after_an_error() -> None:
    net = simclr("tiny", seed=5)
    net.backbone.train()
    next(net.parameters()).requires_grad_(False)
    before, modes = state(net), [m.training for m in net.modules()]

    def stop(progress: Progress) -> None:
        if progress.stage == "distil":
            raise Stopped

    with pytest.raises(Stopped):
        QUICK.repair(net, data=DATA, runtime=replace(FLOAT, progress=stop))
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_no_hook_is_left_on_the_student() -> None:
    found = QUICK.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert not any(m._forward_hooks for m in found.model.modules())


def test_a_killed_run_goes_on_to_the_same_student(tmp_path: Path) -> None:
    method = replace(QUICK, epochs=4)
    straight = method.repair(TEACHER, data=DATA, runtime=FLOAT)

    def stop(progress: Progress) -> None:
        if progress.stage == "distil" and progress.done == 2:
            raise Stopped

    killed = replace(FLOAT, progress=stop, work_dir=tmp_path)
    with pytest.raises(Stopped):
        method.repair(TEACHER, data=DATA, runtime=killed)
    seen: list[Progress] = []
    resumed = method.repair(
        TEACHER,
        data=DATA,
        runtime=replace(FLOAT, progress=seen.append, work_dir=tmp_path),
    )
    assert same(straight.model, resumed.model)
    assert straight.history == resumed.history
    assert [p.stage for p in seen] == ["distil"] * len(seen)  # nothing learnt twice
    assert len(seen) < 4


def test_a_seed_is_a_student() -> None:
    one, two, other = (
        QUICK.repair(TEACHER, data=DATA, seed=s, runtime=FLOAT) for s in (3, 3, 4)
    )
    assert same(one.model, two.model)
    assert not same(one.model, other.model)


def test_labels_are_not_looked_at() -> None:
    labelled = ImageData(
        images=DATA.images,
        labels=torch.arange(80) % 2,
        ids=DATA.ids,
        class_names=("a", "b"),
    )
    plain = QUICK.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert same(plain.model, QUICK.repair(TEACHER, data=labelled, runtime=FLOAT).model)


def test_a_loss_without_bounds_is_an_error_and_no_student() -> None:
    with pytest.raises(DivergedError, match="lower lr"):
        replace(QUICK, lr=1e30).repair(TEACHER, data=DATA, runtime=FLOAT)


def test_starting_points() -> None:
    method = replace(QUICK, epochs=1, lr=1e-12, initialization="teacher")
    found = method.repair(TEACHER, data=DATA, runtime=FLOAT)
    weights = [dict(m.named_parameters()) for m in (found.model, TEACHER)]
    assert all((p - weights[1][n]).abs().max() < 1e-9 for n, p in weights[0].items())
    assert "backdoor" in found.health[0]
    given = simclr("tiny", seed=9)
    before = state(given)
    still = replace(QUICK, epochs=1, lr=1e-12)
    mine = still.repair(TEACHER, data=DATA, student=given, runtime=FLOAT)
    weights = [dict(m.named_parameters()) for m in (mine.model, given)]
    assert all((p - weights[1][n]).abs().max() < 1e-9 for n, p in weights[0].items())
    assert all(value.equal(before[name]) for name, value in given.state_dict().items())
    with pytest.raises(InputError, match="no student"):
        method.repair(TEACHER, data=DATA, student=given)


@pytest.mark.parametrize("source", ["student", "uniform"])
def test_sources_of_the_weights(source: Literal["student", "uniform"]) -> None:
    method = replace(QUICK, epochs=1, information_source=source)
    found = method.repair(TEACHER, data=DATA, runtime=FLOAT)
    weights = [row["weight"] for row in found.tables["layer weights"]]
    assert ("information" in found.tables) == (source == "student")
    assert (weights == [3500.0] * 4) == (source == "uniform")


def test_patience_ends_a_run_that_gains_nothing() -> None:
    seen: list[Progress] = []
    method = replace(QUICK, epochs=9, lr=1e-12, holdout_rate=0.2, patience=2)
    found = method.repair(
        Transformer(), data=DATA, runtime=replace(FLOAT, progress=seen.append)
    )
    assert len(found.history) == 1 + 3
    assert found.stop_reason.startswith("no gain")
    assert seen[-1].done == seen[-1].total


def test_few_images_are_one_batch_or_refused() -> None:
    found = replace(QUICK, batch_size=64).repair(
        TEACHER, data=DATA.take(torch.arange(40)), runtime=FLOAT
    )
    assert any("steps of 40 images" in text for text in found.health)
    with pytest.raises(InputError, match="at least 32 images"):
        QUICK.repair(TEACHER, data=DATA.take(torch.arange(31)))


def test_named_taps_and_wrong_ones() -> None:
    method = replace(QUICK, epochs=1, taps=("backbone.model.layer2",))
    found = method.repair(TEACHER, data=DATA, runtime=FLOAT)
    assert [r["weight"] for r in found.tables["layer weights"]] == [11000.0]
    with pytest.raises(ModelError, match="layer2"):
        replace(method, taps=("model.layer22",)).repair(TEACHER, data=DATA)


def test_an_encoder_that_gives_no_vectors_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ModelError, match="a vector for each image"):
        replace(QUICK, taps=("0",)).repair(net, data=DATA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"clone_weight": -1.0},
        {"holdout_rate": 1.0},
        {"patience": 3},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(QUICK, **wrong)  # type: ignore[arg-type]


def test_half_precision_gives_the_same_slopes_within_a_bound() -> None:
    images = DATA.images[:64].float().div(255)
    slopes = []
    for dtype in (torch.float32, torch.bfloat16):
        net = simclr("tiny", seed=1)
        guide = Teacher(
            TEACHER.backbone,
            layers=stage_names(TEACHER.backbone),
            power=2,
            images=DATA.images[:4],
            runtime=Runtime(dtype=dtype),
        )
        protocol = EncoderProtocol(
            epochs=1, batch_size=32, lr=1, weight_decay=0, clone_weight=1.0
        )
        loss, _ = lesson(
            net,
            (images[:32], images[32:]),
            guide=guide,
            weights=dict.fromkeys(guide.layers, 3500.0),
            protocol=protocol,
            dtype=dtype,
        )
        grads = torch.autograd.grad(loss, list(net.parameters()))
        slopes.append(torch.cat([g.flatten() for g in grads]))
    cosine = torch.nn.functional.cosine_similarity(slopes[0], slopes[1], dim=0)
    assert cosine > 0.97
