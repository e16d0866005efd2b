"""How well scores of suspicion separate poison from the rest, given the truth."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from bezoar.errors import InputError
from bezoar.runtime import generator
from bezoar.shapes import Bool, Float


def auroc(scores: Float[Tensor, " n"], is_poison: Bool[Tensor, " n"]) -> float:
    """Return the chance that a poisoned image scores above a clean one.

    Args:
        scores: Higher is more suspicious.
        is_poison: The truth.

    Returns:
        Area under the receiver operating characteristic; 0.5 is chance.

    Example:
        >>> truth = torch.tensor([True, False, False])
        >>> auroc(torch.tensor([0.9, 0.1, 0.2]), truth)
        1.0
    """
    _check_both(is_poison)
    return float(roc_auc_score(is_poison.numpy(), scores.numpy()))


def average_precision(
    scores: Float[Tensor, " n"], is_poison: Bool[Tensor, " n"]
) -> float:
    """Return the mean precision over the recalls, the area under that curve.

    Args:
        scores: Higher is more suspicious.
        is_poison: The truth.

    Returns:
        Average precision; the poison rate is chance.
    """
    _check_both(is_poison)
    return float(average_precision_score(is_poison.numpy(), scores.numpy()))


def tpr_at_fpr(
    scores: Float[Tensor, " n"], is_poison: Bool[Tensor, " n"], *, fpr: float
) -> float:
    """Return the share of poison found when a share ``fpr`` of the rest is accused.

    Args:
        scores: Higher is more suspicious.
        is_poison: The truth.
        fpr: Largest share of clean images that may score at or above the threshold.

    Returns:
        The largest true positive rate within that bound.
    """
    _check_both(is_poison)
    false, true, _ = roc_curve(is_poison.numpy(), scores.numpy())
    return float(true[false <= fpr].max())


def bootstrap_auroc(
    scores: Float[Tensor, " n"],
    is_poison: Bool[Tensor, " n"],
    *,
    num_draws: int = 200,
    coverage: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return an interval for the AUROC by drawing images with replacement.

    Args:
        scores: Higher is more suspicious.
        is_poison: The truth.
        num_draws: Resamples; poison and clean images are drawn apart.
        coverage: Share of the resampled values inside the interval.
        seed: Seeds the draws.

    Returns:
        Lower and upper end (percentile bootstrap, Efron 1979).
    """
    _check_both(is_poison)
    stream = generator(seed, "bootstrap")
    groups = [scores[is_poison], scores[~is_poison]]
    truth = torch.cat([torch.ones(len(groups[0])), torch.zeros(len(groups[1]))])
    values = torch.empty(num_draws)
    for draw in range(num_draws):
        drawn = [g[torch.randint(len(g), (len(g),), generator=stream)] for g in groups]
        values[draw] = auroc(torch.cat(drawn), truth.bool())
    tail = (1 - coverage) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail])).tolist()
    return low, high


def purity(selected: Bool[Tensor, " n"], is_poison: Bool[Tensor, " n"]) -> float:
    """Return the share of poison among the selected images (precision).

    Args:
        selected: The images taken for poison.
        is_poison: The truth.

    Returns:
        Purity; nan when nothing is selected.
    """
    return is_poison[selected].float().mean().item()


def leakage(trusted: Bool[Tensor, " n"], is_poison: Bool[Tensor, " n"]) -> float:
    """Return the share of all poison that sits among the trusted images.

    Args:
        trusted: The images taken for clean.
        is_poison: The truth.

    Returns:
        Leakage; nan without poison.
    """
    return trusted[is_poison].float().mean().item()


def _check_both(is_poison: Bool[Tensor, " n"]) -> None:
    num_poison = int(is_poison.sum())
    if not 0 < num_poison < len(is_poison):
        raise InputError(
            "expected poisoned and clean images to compare, got "
            f"{num_poison} poisoned of {len(is_poison)}; give both kinds"
        )
