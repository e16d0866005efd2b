"""Encoders judged downstream, on tables that can be counted by hand."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError, ModelError
from bezoar.metrics import (
    EncoderTask,
    evaluate_encoder,
    evaluate_encoders,
    paired_difference,
)
from bezoar.models import NeighborHead, ridge_head, simclr, unit_vectors
from bezoar.runtime import Runtime
from bezoar.train import HeadTraining, train_head

FLOAT = Runtime(dtype=torch.float32)


class Colours(nn.Module):
    """The mean of each channel; blind where red is all that it may see."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, images: Tensor) -> Tensor:
        return self.gain * images.mean((2, 3)) + 0.01


class Blind(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 3) + 0 * images.mean((2, 3))


class Paint:
    """Paints images of the first ``num`` red, the class 0, and leaves the others."""

    def __init__(self, num: int) -> None:
        self.num = num

    def apply(self, images: Tensor) -> Tensor:
        shown = images.clone()
        shown[: self.num] = 0
        shown[: self.num, 0] = 255
        return shown


def colours(labels: list[int]) -> ImageData:
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    images[torch.arange(len(labels)), torch.tensor(labels)] = 200
    return ImageData(
        images=images,
        labels=torch.tensor(labels),
        ids=tuple(map(str, range(len(labels)))),
        class_names=("red", "green", "blue"),
    )


TASK = EncoderTask(
    name="colours",
    train=colours([0, 1, 2] * 6),
    test=colours([1, 2, 1, 2, 0, 1, 2, 0, 1, 2]),
    target_class=0,
)


def test_success_is_counted_with_and_without_the_target_class() -> None:
    found = evaluate_encoder(Colours(), task=TASK, attack=Paint(3), runtime=FLOAT)
    assert found.clean_accuracy == 1
    # 3 of 8 others go to the target; with the 2 of the target itself 5 of 10.
    assert found.attack_success_rate == pytest.approx(3 / 8)
    assert found.attack_success_rate_all == pytest.approx(5 / 10)
    share, rate = 2 / 10, 3 / 8
    assert found.attack_success_rate_all == pytest.approx(share + (1 - share) * rate)
    assert found.false_target_rate == 0
    assert (found.num_triggered, found.num_clean) == (8, 10)


def test_without_an_attack_there_is_no_rate() -> None:
    found = evaluate_encoder(Colours(), task=TASK, runtime=FLOAT)
    assert found.attack_success_rate is None
    assert found.target_class is None


def test_encoders_stand_beside_the_floor_and_the_untrained() -> None:
    rows = evaluate_encoders(
        {"clean": Colours(), "teacher": Colours(2.0), "untrained": Blind()},
        tasks=[TASK],
        attack=Paint(3),
        runtime=FLOAT,
    )
    assert [row.encoder for row in rows] == ["clean", "teacher", "untrained"]
    assert [row.knowledge_recovery for row in rows] == [1, 1, 0]
    assert {row.floor for row in rows} == {rows[0].attack_success_rate}
    alone = evaluate_encoders({"a": Colours()}, tasks=[TASK], runtime=FLOAT)
    assert alone[0].floor is None
    assert alone[0].knowledge_recovery is None


@pytest.mark.parametrize(
    "head",
    [
        ridge_head,
        partial(NeighborHead, num_neighbors=5),
        partial(train_head, settings=HeadTraining(epochs=60, lr=0.01)),
    ],
)
def test_every_head_learns_what_is_plain(head: object) -> None:
    found = evaluate_encoder(Colours(), task=TASK, head=head, runtime=FLOAT)  # type: ignore[arg-type]
    assert found.clean_accuracy == 1


def test_ridge_is_the_solution_of_its_normal_equations() -> None:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=stream) * torch.tensor([1.0, 5.0, 0.1]) + 2
    y = torch.randint(0, 2, (40,), generator=stream)
    head = ridge_head(x, y, 2, ridge=0.1)
    spread = x.std(0, correction=0)
    weights = (head.weight * spread).detach().requires_grad_()
    rows = (x - x.mean(0)) / spread
    truth = functional.one_hot(y, 2).float()
    errors = rows @ weights.T + truth.mean(0) - truth
    loss = errors.square().sum() + 0.1 * 40 * weights.square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert slope.abs().max() < 1e-3
    torch.testing.assert_close(head(x), rows @ weights.T + truth.mean(0))


def test_neighbours_vote_by_the_exponential_of_their_cosine() -> None:
    known = functional.normalize(torch.tensor([[1.0, 0], [1, 1], [0, 1]]), dim=1)
    head = NeighborHead(known, torch.tensor([0, 1, 1]), 2, num_neighbors=2)
    votes = head(torch.tensor([[1.0, 0.0]]))[0]
    expected = torch.tensor([1.0, 0.5**0.5]).div(0.5).exp()
    torch.testing.assert_close(votes, expected)


def test_a_head_is_repeatable_and_leaves_the_random_state() -> None:
    x, y = torch.rand(30, 4), torch.arange(30) % 3
    before = torch.get_rng_state()
    quick = HeadTraining(epochs=3, batch_size=8)
    a, b, c = (train_head(x, y, 3, settings=quick, seed=s)(x) for s in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert a.equal(b)
    assert not a.equal(c)
    assert HeadTraining.paper().shuffle is False
    with pytest.raises(DivergedError, match="lower lr"):
        train_head(x * float("nan"), y, 3, settings=quick)
    with pytest.raises(InputError, match="epochs"):
        HeadTraining(epochs=0)


def test_vectors_do_not_depend_on_the_batch_and_the_encoder_is_left_alone() -> None:
    net = simclr("tiny").train()
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    whole = unit_vectors(net, images, runtime=FLOAT)
    parts = unit_vectors(net, images, runtime=replace(FLOAT, batch_size=2))
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)  # other kernels
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(9))
    assert net.training
    with pytest.raises(ModelError, match="one vector per image"):
        unit_vectors(nn.Conv2d(3, 2, 3), images, runtime=FLOAT)


def test_differences_are_paired_by_seed() -> None:
    mean, error = paired_difference([1.0, 2.0, 3.0], [0.5, 1.0, 3.0])
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(0.5 / 3**0.5)
    with pytest.raises(InputError, match="same seeds"):
        paired_difference([1.0], [])


def test_tasks_without_sense_are_refused() -> None:
    with pytest.raises(InputError, match="target_class"):
        replace(TASK, target_class=3)
    with pytest.raises(InputError, match="other classes"):
        replace(TASK, test=colours([0, 0]))
    with pytest.raises(InputError, match="same classes"):
        replace(TASK, test=replace(TASK.test, class_names=("a", "b", "c")))
