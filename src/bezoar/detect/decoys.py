"""A verdict from how well labels are told, against how well any other label would be.

For poison that is spread over all classes, where no class stands out and the middle of
all scores means nothing. An innocent image's own label is to the network a label like
any other; so what the network gives a label on images of *other* classes shows what an
innocent image of that class would get. It is the idea of target and decoy, by which
sequence searches count their false hits (Elias and Gygi, Nature Methods, 2007).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bezoar.metrics.thresholds import (
    Decision,
    benjamini_hochberg,
    conformal_p_values,
)
from bezoar.results import ClassEvidence
from bezoar.shapes import Float, Int64

_SURE = 6.0  # deviations of the excess over the false hits expected
_CLASS_FOUND, _CLASS_LOOK = 0.5, 0.1  # flagged share of a class


def by_decoys(
    output: Float[Tensor, "n classes"],
    labels: Int64[Tensor, " n"],
    *,
    false_discovery_rate: float,
) -> Decision:
    """Judge what a network gives each image's own label.

    Args:
        output: log p(class | image), or anything that grows with it.
        labels: Class indices.
        false_discovery_rate: Share of innocents aimed at among the flagged.

    Returns:
        "found" if more labels are told than six deviations beyond what chance leads to
        expect, else "nothing found", with nothing flagged.
    """
    p_values = decoy_p_values(output, labels)
    flagged = benjamini_hochberg(p_values, rate=false_discovery_rate)
    count = int(flagged.sum())
    chance = len(labels) * p_values[flagged].max().item() if count else 0.0
    if count - chance < _SURE * math.sqrt(chance + 1):
        flagged, count = torch.zeros_like(flagged), 0
    rate = (1 - false_discovery_rate) * count / len(labels)
    return Decision(
        status="found" if count else "nothing found",
        flagged=flagged,
        p_values=p_values,
        expected_false_alarms=false_discovery_rate * count,
        poison_rate=rate if count else None,
        classes=_by_class(output, flagged, labels),
    )


def decoy_p_values(
    output: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return how often images of other classes get an image's label as surely.

    Args:
        output: log p(class | image).
        labels: Class indices.

    Returns:
        Chance of so sure a label for an innocent image. Poison among the others makes
        it too small by the very share of innocents in the class, so that the number of
        false hits that it leads to expect is right.

    Example:
        >>> sure = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
        >>> decoy_p_values(sure, torch.tensor([0, 1, 1])).tolist()
        [0.3333333432674408, 0.5, 0.5]
    """
    found = torch.ones(len(labels))
    for label in labels.unique().tolist():
        own = labels == label
        given = output[:, label]
        if not own.all():
            found[own] = conformal_p_values(-given[own], -given[~own])
    return found


def _by_class(
    output: Tensor, flagged: Tensor, labels: Tensor
) -> tuple[ClassEvidence, ...]:
    overall, rows = flagged.float().mean().item(), []
    for label in labels.unique().tolist():
        own = labels == label
        share, size = flagged[own].float().mean().item(), int(own.sum())
        spread = math.sqrt(max(overall * (1 - overall), 0.25 / size) / size)
        status = "found" if share > _CLASS_FOUND else "nothing found"
        rows.append(
            ClassEvidence(
                label=label,
                num_images=size,
                median=output[own, label].median().item(),
                excess=share - overall,
                z=(share - overall) / spread,
                num_flagged=int(flagged[own].sum()),
                status="look" if _CLASS_LOOK < share <= _CLASS_FOUND else status,  # type: ignore[arg-type]
            )
        )
    return tuple(rows)
