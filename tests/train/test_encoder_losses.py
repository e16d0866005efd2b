"""Contrastive losses where they can be worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from bezoar.train.encoder_losses import nt_xent, sup_con


def test_equal_vectors_give_the_logarithm_of_all_others() -> None:
    same = functional.normalize(torch.ones(128, 4), dim=1)
    assert nt_xent(same, same).item() == pytest.approx(math.log(255), abs=1e-5)
    assert nt_xent(same, same).item() == pytest.approx(5.541264, abs=1e-5)


def test_two_orthogonal_pairs() -> None:
    corners = torch.eye(2)
    assert nt_xent(corners, corners).item() == pytest.approx(0.239545, abs=1e-6)


def test_nt_xent_is_its_formula_row_by_row() -> None:
    drawn = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator())
    rows = functional.normalize(drawn, dim=1).float()
    total = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        others = [j for j in range(10) if j != i]
        cosines = [float(rows[i] @ rows[j]) / 0.5 for j in others]
        share = math.exp(float(rows[i] @ rows[partner]) / 0.5)
        total -= math.log(share / sum(math.exp(c) for c in cosines)) / 10
    assert nt_xent(rows[:5], rows[5:]).item() == pytest.approx(total, rel=1e-5)


def test_pairs_as_classes_make_sup_con_nt_xent() -> None:
    rows = functional.normalize(
        torch.randn(12, 5, generator=torch.Generator().manual_seed(1)), dim=1
    )
    labels = torch.arange(6).repeat(2)
    expected = nt_xent(rows[:6], rows[6:], temperature=0.2)
    found = sup_con(rows, labels, temperature=0.2)
    torch.testing.assert_close(found, expected)


def test_an_image_alone_in_its_class_counts_for_nothing() -> None:
    rows = functional.normalize(
        torch.randn(5, 3, generator=torch.Generator().manual_seed(2)), dim=1
    ).requires_grad_()
    alone = sup_con(rows, torch.arange(5))
    (slope,) = torch.autograd.grad(alone, rows)
    assert alone.item() == 0
    assert not slope.any()
