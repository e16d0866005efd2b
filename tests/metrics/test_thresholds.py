"""Rules against simulations whose truth is known."""

import pytest
import torch
from torch import Tensor

from bezoar.metrics.thresholds import (
    benjamini_hochberg,
    by_reference,
    by_review,
    by_sigmas,
    can_scan_classes,
    class_scan,
    conformal_p_values,
)
from bezoar.runtime import generator


def simulated(
    seed: int, *, num_poison: int = 0, place: float = -3.0, class_shift: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Ten labels of 500 normal norms; poison replaces part of class 4."""
    stream = generator(seed, "simulated")
    labels = torch.arange(10).repeat_interleave(500)
    raw = torch.randn(5000, generator=stream)
    raw += class_shift * torch.randn(10, generator=stream)[labels]
    is_poison = torch.zeros(5000, dtype=torch.bool)
    is_poison[2000 : 2000 + num_poison] = True
    raw[is_poison] = place + 0.5 * torch.randn(num_poison, generator=stream)
    return raw, labels, is_poison


def test_class_scan_finds_the_class_and_keeps_the_false_share() -> None:
    found, rates, false_shares, covered = [], [], [], []
    for seed in range(20):
        raw, labels, is_poison = simulated(seed, num_poison=250)
        decision = class_scan(raw, labels, false_discovery_rate=0.10)
        found.append((decision.status, decision.target_class))
        rates.append(decision.flagged[is_poison].float().mean().item())
        false_shares.append((~is_poison[decision.flagged]).float().mean().item())
        low, high = decision.poison_rate_interval or (1.0, 0.0)
        covered.append(low <= 250 / 5000 <= high)
    assert found == [("found", 4)] * 20
    # measured .98 and .06; the spread over seeds is .01
    assert sum(rates) / 20 >= 0.95
    assert sum(false_shares) / 20 <= 0.12
    assert sum(covered) >= 16  # a 90 % interval misses 4 of 20 with chance 0.13


@pytest.mark.parametrize("class_shift", [0.0, 0.5])
def test_class_scan_finds_nothing_in_clean_scores(class_shift: float) -> None:
    for seed in range(40):
        raw, labels, _ = simulated(seed, class_shift=class_shift)
        decision = class_scan(raw, labels, false_discovery_rate=0.10)
        assert decision.status == "nothing found"
        assert not decision.flagged.any()
        assert decision.poison_rate is None
        assert decision.target_class is None


def test_class_scan_ignores_shuffled_labels() -> None:
    raw, labels, _ = simulated(1, num_poison=250)
    shuffled = labels[torch.randperm(5000, generator=generator(0, "shuffle"))]
    decision = class_scan(raw, shuffled, false_discovery_rate=0.10)
    assert decision.status == "nothing found"


def test_class_scan_passes_small_classes_over() -> None:
    raw, labels, _ = simulated(2)
    labels = torch.where(torch.arange(5000) < 49, torch.tensor(10), labels)
    decision = class_scan(raw, labels, false_discovery_rate=0.10)
    assert [row.label for row in decision.classes] == list(range(10))
    assert can_scan_classes(labels)
    assert not can_scan_classes(torch.full((5000,), -1))
    assert not can_scan_classes(torch.arange(5000) % 4)


def test_conformal_p_values_are_uniform_for_exchangeable_scores() -> None:
    stream = generator(0, "uniform")
    p_values = torch.cat(
        [
            conformal_p_values(
                torch.randn(10, generator=stream), torch.randn(199, generator=stream)
            )
            for _ in range(400)
        ]
    )
    for level in (0.05, 0.25, 0.5, 0.9):  # 4000 values: sd 0.008 at one half
        share = (p_values <= level).float().mean().item()
        assert share == pytest.approx(level, abs=0.03)


def test_benjamini_hochberg_holds_its_rate_and_has_power() -> None:
    stream, false_shares, power = generator(0, "bh"), [], []
    for _ in range(200):
        p_values = torch.rand(200, generator=stream)
        p_values[:40] = p_values[:40] * 1e-3
        rejected = benjamini_hochberg(p_values, rate=0.10)
        false_shares.append(rejected[40:].sum().item() / max(1, int(rejected.sum())))
        power.append(rejected[:40].float().mean().item())
    assert sum(false_shares) / 200 <= 0.10
    assert sum(power) / 200 >= 0.99


def test_benjamini_hochberg_against_the_definition() -> None:
    p_values = torch.rand(30, generator=generator(5, "p")) ** 3
    largest = 0
    for k in range(1, 31):
        if 30 * sorted(p_values.tolist())[k - 1] / k <= 0.2:
            largest = k
    assert int(benjamini_hochberg(p_values, rate=0.2).sum()) == largest


def test_reference_flags_poison_and_nothing_among_exchangeable_scores() -> None:
    stream = generator(0, "reference")
    reference = torch.randn(2000, generator=stream)
    clean = torch.randn(1000, generator=stream)
    assert by_reference(clean, reference, false_discovery_rate=0.1).status == (
        "nothing found"
    )
    mixed = torch.cat([clean, torch.full((50,), -6.0)])
    decision = by_reference(mixed, reference, false_discovery_rate=0.1)
    assert decision.status == "found"
    assert decision.flagged[-50:].all()
    assert decision.flagged[:-50].sum() <= 12


# Phi(-gamma); 20,000 draws: sd 0.0026 at 0.16
@pytest.mark.parametrize(
    ("sigmas", "rate"), [(0.5, 0.309), (1.0, 0.159), (1.645, 0.050), (2.33, 0.010)]
)
@pytest.mark.parametrize("known", [True, False])
def test_sigmas_accuse_the_share_they_announce(
    sigmas: float, rate: float, known: bool
) -> None:
    stream = generator(0, "sigmas")
    raw = torch.randn(20_000, generator=stream)
    reference = torch.randn(20_000, generator=stream) if known else None
    decision = by_sigmas(raw, reference, sigmas=sigmas)
    assert decision.flagged.float().mean().item() == pytest.approx(rate, abs=0.012)
    assert decision.expected_false_alarms == pytest.approx(20_000 * rate, rel=0.05)


def test_review_lists_the_share_asked_for_and_claims_nothing() -> None:
    raw = torch.arange(100.0)
    decision = by_review(raw, review_rate=0.05)
    assert decision.flagged.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert decision.status == "ranking"
