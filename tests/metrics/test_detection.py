import pytest
import torch

from bezoar.errors import InputError
from bezoar.metrics import (
    auroc,
    average_precision,
    bootstrap_auroc,
    leakage,
    purity,
    tpr_at_fpr,
)
from bezoar.runtime import generator


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    stream = generator(0, "auroc")
    scores = torch.randint(0, 6, (40,), generator=stream).float()
    truth = torch.rand(40, generator=stream) < 0.3
    pairs = scores[truth][:, None] - scores[~truth]
    share = ((pairs > 0).float() + 0.5 * (pairs == 0).float()).mean().item()
    assert auroc(scores, truth) == pytest.approx(share)
    assert auroc(-scores, truth) == pytest.approx(1 - share)


def test_rates_of_a_ranking_known_by_hand() -> None:
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0])
    truth = torch.tensor([True, False, True, False, False])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert tpr_at_fpr(scores, truth, fpr=0.0) == 0.5
    assert tpr_at_fpr(scores, truth, fpr=0.34) == 1.0
    assert purity(scores > 6.5, truth) == pytest.approx(2 / 3)
    assert leakage(scores < 7.5, truth) == 0.5


def test_bootstrap_interval_holds_the_value_and_shrinks_with_more_images() -> None:
    stream = generator(0, "bootstrap test")
    widths = []
    for size in (100, 1000):
        scores = torch.randn(size, generator=stream)
        truth = torch.arange(size) < size // 4
        scores[truth] += 1
        low, high = bootstrap_auroc(scores, truth)
        assert low < auroc(scores, truth) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_both_kinds_of_image_are_needed() -> None:
    with pytest.raises(InputError, match="got 0 poisoned of 3"):
        auroc(torch.rand(3), torch.zeros(3, dtype=torch.bool))
