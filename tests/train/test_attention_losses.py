"""Attention maps and the terms that hold a student to a teacher."""

import pytest
import torch
from torch import Tensor

from bezoar.train import attention_loss, attention_map, clone_loss


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_map_worked_out_by_hand() -> None:
    student = attention_map(torch.tensor([[[[1.0, 2.0], [0.0, 0.0]]]]))
    ones = attention_map(torch.ones(1, 1, 2, 2))
    cosine = (student * ones).sum().item()
    assert cosine == pytest.approx(0.606339, abs=2e-6)
    assert attention_loss(student, ones).item() == pytest.approx(0.196830, abs=2e-6)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_length_one_and_no_scale(power: int) -> None:
    given = maps(3, 5, 4, 6)
    found = attention_map(given, power=power)
    assert found.flatten(1).norm(dim=1).sub(1).abs().max() < 1e-5
    assert (attention_map(7 * given, power=power) - found).abs().max() < 1e-5


def test_the_mean_is_two_times_one_minus_the_cosine_over_the_places() -> None:
    one, two = attention_map(maps(2, 5, 4, 6)), attention_map(maps(2, 5, 4, 6, seed=1))
    cosines = (one * two).sum((1, 2))
    expected = (2 * (1 - cosines) / 24).mean().item()
    assert attention_loss(one, two).item() == pytest.approx(expected, rel=1e-4)
    total = attention_loss(one, two, reduction="sum").item()
    assert total == pytest.approx(24 * expected, rel=1e-4)
    assert attention_loss(one, one).item() == 0


def test_the_clone_term_goes_from_minus_one_to_one() -> None:
    rows = torch.eye(3)
    assert clone_loss(rows, rows).item() == -1
    assert clone_loss(rows, -rows).item() == 1
    assert clone_loss(rows, rows.roll(1, 0)).item() == 0


def test_half_precision_is_widened_before_it_is_squared() -> None:
    loud = torch.full((1, 4, 2, 2), 300.0, dtype=torch.float16)  # 300^2 overflows
    found = attention_map(loud)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
