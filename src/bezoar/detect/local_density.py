"""Suspicious pairs by how lonely their images are among the others.

Huang et al., "Detecting Backdoor Samples in Contrastive Language Image Pretraining",
ICLR 2025, https://arxiv.org/abs/2502.01385: planted images lie close to each other, and
far from everyone else; in a small part of a set there are few of them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.detect.column_verdict import Measured, as_detection, check_rates, decide
from bezoar.errors import InputError
from bezoar.metrics import image_vectors
from bezoar.models import DualEncoder
from bezoar.results import Detection, Provenance
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, Int64

_ROWS = 512  # images that are compared with the pool at once: distances, not products
_MOST = 1000.0  # what takes the place of no number, as in the published code
_TINY = 1e-4  # inside the logarithm, as there


@dataclass(frozen=True, kw_only=True)
class LocalDensity:
    """Scores pairs by the density around their images; captions are not looked at.

    It assumes that fewer than ``num_neighbors`` planted images fall into the pool: 3 %
    of 1024 are 31, so take a smaller pool or clean pairs for it. The default only
    ranks.

    Attributes:
        kind: "dao" (dimensionality-aware outlier), "slof" (simplified local outlier
            factor) or "k_distance".
        num_neighbors: Neighbours looked at (K).
        pool_size: Images that neighbours are looked for among, drawn at random.
        threshold: "review" flags the ``review_rate`` of the highest scores, "none"
            ranks.
        review_rate: Share of the pairs that "review" flags.
    """

    kind: Literal["dao", "slof", "k_distance"] = "dao"
    num_neighbors: int = 16
    pool_size: int = 1024
    threshold: Literal["none", "review"] = "none"
    review_rate: float = 0.02

    def __post_init__(self) -> None:
        check_rates(false_discovery_rate=0.5, review_rate=self.review_rate)
        if not 2 <= self.num_neighbors < self.pool_size:
            raise InputError(
                "expected num_neighbors of at least 2 and below pool_size, got "
                f"{self.num_neighbors} and {self.pool_size}; correct them"
            )

    def detect(
        self,
        data: PairData,
        *,
        model: DualEncoder,
        pool: PairData | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Score every pair by its image.

        Args:
            data: The pairs that the model was trained on.
            model: The suspect model; it is left as it was.
            pool: Clean pairs to look for neighbours among; None draws from ``data``.
            seed: Seeds the choice of the pool.
            runtime: Where and how to run.

        Returns:
            A score for each pair.

        Raises:
            InputError: If the pool has no more images than neighbours wanted.
        """
        start = time.perf_counter()
        vectors = image_vectors(model, data, runtime=runtime)
        places = torch.full((len(data),), -1)
        if pool is None:
            order = torch.randperm(len(data), generator=generator(seed, "pool"))
            rows = order[: self.pool_size].sort().values
            places[rows], among = torch.arange(len(rows)), vectors[rows]
        else:
            among = image_vectors(model, pool, stage="pool", runtime=runtime)
        if len(among) <= self.num_neighbors:
            raise InputError(
                f"expected more than {self.num_neighbors} images to look for "
                f"neighbours among, got {len(among)}; give more, or lower num_neighbors"
            )
        k_distance, slof, dao = densities(
            vectors, among, places=places, num_neighbors=self.num_neighbors
        )
        columns = {"k_distance": k_distance, "slof": slof, "dao": dao}
        scores = columns[self.kind]
        measured = Measured(
            ids=data.ids,
            labels=data.labels,
            class_names=data.class_names,
            groups=data.labels,
            scores=scores,
            low=-scores,
            columns=columns,
            sign="their images lie apart from others",
            reason=lambda i: (
                f"{self.kind} {scores[i].item():.3g}, half of all images "
                f"below {scores.median().item():.3g}"
            ),
        )
        decision = decide(
            measured,
            rule=self.threshold,
            false_discovery_rate=0.5,
            review_rate=self.review_rate,
        )
        provenance = Provenance(
            method="local-density",
            settings=asdict(self),
            seed=seed,
            seconds=time.perf_counter() - start,
            forwards_per_image=1,
        )
        return as_detection(
            measured, decision, rule=self.threshold, provenance=provenance
        )


def densities(
    vectors: Float[Tensor, "n e"],
    pool: Float[Tensor, "m e"],
    *,
    places: Int64[Tensor, " n"],
    num_neighbors: int,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return three measures of how lonely vectors are in a pool.

    With d_k(i) the distance to the k-th neighbour and sums over the K neighbours j of
    i: k-distance d_K(i); SLOF = mean d_K(i) / d_K(j); LID(j) = -K / sum_k
    ln(d_k(j) / d_K(j) + 1e-4); DAO = mean LID(j) ln(d_K(i) / d_K(j)). Nobody is their
    own neighbour; the published code leaves the distance to itself in the statistics
    of the neighbours.

    Args:
        vectors: One per image.
        pool: Those of the images that neighbours are looked for among.
        places: Place of each image in the pool, -1 where it is not in it.
        num_neighbors: How many neighbours to look at (K).

    Returns:
        k-distance, SLOF and DAO; 1000 in place of what is no finite number.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0]])
        >>> far, _, _ = densities(
        ...     line, line, places=torch.arange(5), num_neighbors=2
        ... )
        >>> far.tolist()
        [2.0, 1.0, 1.0, 2.0, 7.0]
    """
    k = num_neighbors
    own = torch.arange(len(pool))
    near, _ = _nearest(pool, pool, places=own, num_neighbors=k)
    reach = near[:, -1]
    dimension = -k / (near / reach[:, None] + _TINY).log().sum(1)
    distances, neighbours = _nearest(vectors, pool, places=places, num_neighbors=k)
    ratio = distances[:, -1:] / reach[neighbours]
    slof, dao = ratio.mean(1), (dimension[neighbours] * ratio.log()).mean(1)
    told = {"nan": _MOST, "posinf": _MOST, "neginf": _MOST}
    return distances[:, -1], slof.nan_to_num(**told), dao.nan_to_num(**told)


def _nearest(
    vectors: Tensor, pool: Tensor, *, places: Tensor, num_neighbors: int
) -> tuple[Tensor, Tensor]:
    found = []
    for rows in torch.arange(len(vectors)).split(_ROWS):
        distances = torch.cdist(
            vectors[rows], pool, compute_mode="donot_use_mm_for_euclid_dist"
        )
        inside = (places[rows] >= 0).nonzero().flatten()
        distances[inside, places[rows][inside]] = torch.inf
        found.append(distances.topk(num_neighbors, largest=False))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
