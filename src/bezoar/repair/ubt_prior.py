"""Which pairs look weak to a reference, and which can be trusted: stage 0 of UBT.

That weakly similar pairs are the suspicious ones is the papers'. Sizes, the trusted
half and the gap between two models are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder, embed_captions, embed_images
from bezoar.results import Detection
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, Int64

MOST_NORMAL = 10_000
_FOR_MARGIN = 512
_LARGE_GAP = 0.9  # quantile of the gap above which a pair is not trusted


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """What is known of the pairs before anything is trained.

    Attributes:
        scores: Higher is more suspicious; one per pair.
        suspicious: Places of the suspicious pairs (D_susp), most suspicious first.
        normal: Places of pairs to trust (D_norm), shuffled.
        similarity_model: Cosines under the suspect model (b); None where another
            detection ranks.
        similarity_reference: Cosines under the reference (a); likewise.
    """

    scores: Float[Tensor, " n"]
    suspicious: Int64[Tensor, " s"]
    normal: Int64[Tensor, " m"]
    similarity_model: Float[Tensor, " n"] | None = None
    similarity_reference: Float[Tensor, " n"] | None = None


def num_suspicious(total: int, *, suspicious_rate: float, min_suspicious: int) -> int:
    """Return how many pairs count as suspicious (n_s).

    Args:
        total: How many pairs there are (N).
        suspicious_rate: Share of them.
        min_suspicious: Least number.

    Returns:
        min(N / 2, max(``min_suspicious``, ``suspicious_rate`` N)).

    Example:
        >>> num_suspicious(500_000, suspicious_rate=0.004, min_suspicious=256)
        2000
    """
    # A product such as 0.15 * 3000 must not be rounded up for its last bit.
    wanted = math.ceil(round(suspicious_rate * total, 6))
    return min(total // 2, max(min_suspicious, wanted))


def split_by_similarity(
    similarity_model: Float[Tensor, " n"],
    similarity_reference: Float[Tensor, " n"],
    *,
    suspicious_rate: float,
    min_suspicious: int,
    seed: int,
) -> Prior:
    """Split pairs by how weak a reference finds them.

    Args:
        similarity_model: Cosines under the suspect model (b).
        similarity_reference: Cosines under the reference (a).
        suspicious_rate: Share of suspicious pairs.
        min_suspicious: Least number of them.
        seed: Seeds which of the trusted pairs are taken.

    Returns:
        Suspicious are the pairs of the lowest a; trusted those from the median of a on
        whose gap b - a is at most its 90th percentile. Scores are the gaps.
    """
    a, gap = similarity_reference, similarity_model - similarity_reference
    count = num_suspicious(
        len(a), suspicious_rate=suspicious_rate, min_suspicious=min_suspicious
    )
    suspicious = a.argsort(stable=True)[:count]
    trusted = (a >= a.median()) & (gap <= gap.quantile(_LARGE_GAP))
    return Prior(
        scores=gap,
        suspicious=by_score(suspicious, gap),
        normal=_sample(trusted, suspicious, seed=seed),
        similarity_model=similarity_model,
        similarity_reference=similarity_reference,
    )


def split_by_detection(
    detection: Detection, *, suspicious_rate: float, min_suspicious: int, seed: int
) -> Prior:
    """Split pairs by what another detector found.

    Args:
        detection: One score per pair. With the columns "similarity_model" and
            "similarity_reference" these are used as in ``split_by_similarity``.
        suspicious_rate: Share of suspicious pairs.
        min_suspicious: Least number of them.
        seed: Seeds which of the trusted pairs are taken.

    Returns:
        Suspicious are the pairs of the highest scores; trusted those up to the median.
    """
    columns = detection.columns
    if {"similarity_model", "similarity_reference"} <= columns.keys():
        return split_by_similarity(
            columns["similarity_model"],
            columns["similarity_reference"],
            suspicious_rate=suspicious_rate,
            min_suspicious=min_suspicious,
            seed=seed,
        )
    scores = detection.scores
    count = num_suspicious(
        len(scores), suspicious_rate=suspicious_rate, min_suspicious=min_suspicious
    )
    suspicious = scores.argsort(descending=True, stable=True)[:count]
    trusted = scores <= scores.median()
    return Prior(
        scores=scores,
        suspicious=suspicious,
        normal=_sample(trusted, suspicious, seed=seed),
    )


def margin(
    images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]
) -> Float[Tensor, ""]:
    """Return how similar pairs are that do not belong together (m).

    Args:
        images: Unit vectors of images.
        texts: Unit vectors of their captions.

    Returns:
        Mean of the cosines off the diagonal.

    Example:
        >>> margin(torch.eye(3), torch.eye(3)).item()
        0.0
    """
    count = len(images)
    cosines = images @ texts.T
    return (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))


def margin_of(
    model: DualEncoder, data: PairData, normal: Int64[Tensor, " m"], *, runtime: Runtime
) -> float:
    """Return the margin of a model on at most 512 trusted pairs.

    Args:
        model: In eval mode, on the device.
        data: All pairs.
        normal: Places of the trusted ones.
        runtime: Its batch size is used.

    Returns:
        The margin (m).
    """
    part = data.take(normal[:_FOR_MARGIN])
    seen = embed_images(model, part.images, batch_size=runtime.batch_size)
    return margin(seen, embed_captions(model, part.captions)).item()


def by_score(
    rows: Int64[Tensor, " s"], scores: Float[Tensor, " n"]
) -> Int64[Tensor, " s"]:
    """Return places in the order of their scores, the highest first.

    Args:
        rows: Some places.
        scores: One per pair.

    Returns:
        The same places.
    """
    return rows[scores[rows].argsort(descending=True, stable=True)]


def _sample(
    trusted: Tensor, suspicious: Int64[Tensor, " s"], *, seed: int
) -> Int64[Tensor, " m"]:
    trusted = trusted.clone()
    trusted[suspicious] = False
    rows = trusted.nonzero().flatten()
    if len(rows) < 8:
        raise InputError(
            f"expected at least 8 pairs that can be trusted, got {len(rows)} of "
            f"{len(trusted)}; give more pairs, or a reference that tells them apart"
        )
    order = torch.randperm(len(rows), generator=generator(seed, "normal-pairs"))
    return rows[order[: min(5 * len(suspicious), MOST_NORMAL)]]
