"""Facility location: few points that stand for all, chosen greedily.

Picks S so that the sum over all points of the similarity to the nearest point of S is
large, where similarity is the largest distance less the distance. Each pick is that of
the greedy algorithm (Nemhauser, Wolsey and Fisher, 1978); most gains need not be
computed, since a gain can only shrink as others are picked (Minoux, 1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.errors import InputError
from bezoar.shapes import Float, Int64

_BLOCK = 1 << 17  # distances at a time: they stay in the cache
_CANDIDATES = 16  # gains computed at once: from 8 on as quick in our measurements
_SMALL = 256  # points: up to here all gains are computed, which is quicker
_SAME = 1e-12  # squared distances below, as shares of the largest square, are none


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Points by the medoid that stands for them.

    Attributes:
        medoids: Places of the medoids, in the order in which they were picked.
        nearest: For each point, which of the medoids is nearest: a place in
            ``medoids``, the earlier pick where two are as near.
        distance: For each point, how far its medoid is; for those that are alone in
            their cluster, how far the next medoid is, 0 where there is none.
    """

    medoids: Int64[Tensor, " b"]
    nearest: Int64[Tensor, " n"]
    distance: Float[Tensor, " n"]

    @property
    def sizes(self) -> Int64[Tensor, " b"]:
        """Number of points of each medoid, itself among them."""
        return self.nearest.bincount(minlength=len(self.medoids))


def facility_location(
    points: Float[Tensor, "n d"], *, num_medoids: int
) -> Int64[Tensor, " b"]:
    """Pick the points that stand best for all, one after the other.

    Time grows with the number of picks times that of points; of distances, a block is
    held at a time.

    Args:
        points: Vectors; distances between them are Euclidean.
        num_medoids: How many to pick.

    Returns:
        Places of the points picked, the first pick first. Of equal gains any may be
        taken.

    Raises:
        InputError: If there are no more points than picks asked for, or none is.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0]])
        >>> facility_location(line, num_medoids=2).tolist()
        [2, 4]
    """
    if not 1 <= num_medoids <= len(points):
        raise InputError(
            f"expected num_medoids from 1 to the {len(points)} points, got "
            f"{num_medoids}; correct it"
        )
    apart = _Distances(points)
    if len(points) <= _SMALL:
        return _all_gains(apart.of(torch.arange(len(points))), num_medoids)
    # The largest distance is the same for all, and plays no part in any pick.
    sums = torch.cat(
        [apart.of(part).sum(1, dtype=torch.float64) for part in _parts(len(points))]
    )
    picked = [int(sums.argmin())]
    near = apart.of(torch.tensor(picked))[0]
    # A bound on the gain of each point: what it was when it was last computed. Those
    # relative to the first pick are much closer than those before it.
    bounds = torch.cat([apart.gains(part, near) for part in _parts(len(points))])
    bounds[picked] = -1
    for _ in range(num_medoids - 1):
        best = _next(apart, near, bounds)
        picked.append(best)
        bounds[best] = -1
        near = torch.minimum(near, apart.of(torch.tensor([best]))[0])
    return torch.tensor(picked)


def clusters(points: Float[Tensor, "n d"], medoids: Int64[Tensor, " b"]) -> Clusters:
    """Let every point join its nearest medoid.

    Args:
        points: Vectors.
        medoids: Places of those that stand for others.

    Returns:
        The clusters.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> found = clusters(line, torch.tensor([2, 3]))
        >>> found.sizes.tolist(), found.distance.tolist()
        ([3, 1], [2.0, 1.0, 0.0, 7.0])
    """
    apart = _Distances(points)
    nearest, own, next_one = [], [], []
    for part in _parts(len(points)):
        away = apart.of(part, medoids)
        nearest.append(away.argmin(1))
        own.append(away.amin(1))
        away[part[:, None] == medoids] = torch.inf
        next_one.append(away.amin(1))
    joined, other = torch.cat(nearest), torch.cat(next_one)
    is_alone = (joined.bincount(minlength=len(medoids)) == 1)[joined]
    distance = torch.cat(own).where(~is_alone, other.where(other.isfinite(), 0.0))
    return Clusters(medoids=medoids, nearest=joined, distance=distance)


class _Distances:
    """Distances by a matrix product in float64, in which near points have some."""

    def __init__(self, points: Tensor) -> None:
        wide = points.double()
        squares = wide.square().sum(1, keepdim=True)
        self._none = _SAME * squares.max().item()
        ones = torch.ones_like(squares)
        self._left = torch.cat([-2 * wide, squares, ones], 1)
        self._right = torch.cat([wide, ones, squares], 1).T.contiguous()

    def of(self, rows: Tensor, columns: Tensor | None = None) -> Tensor:
        right = self._right if columns is None else self._right[:, columns]
        squared = (self._left[rows] @ right).float()
        found: Tensor = functional.threshold(
            squared, self._none, 0.0, inplace=True
        ).sqrt_()
        return found

    def gains(self, rows: Tensor, near: Tensor) -> Tensor:
        """Return by how much each of some points would bring all points nearer."""
        return self.of(rows).neg_().add_(near).clamp_(min=0).sum(1, dtype=torch.float64)


def _all_gains(distances: Tensor, num_medoids: int) -> Tensor:
    # As ``facility_location`` picks, with the gains of all points each time.
    near = torch.full_like(distances[0], torch.inf)
    taken = torch.zeros(len(distances), dtype=torch.float64)
    picked, gains = [], -distances.sum(1, dtype=torch.float64)
    for _ in range(num_medoids):
        best = int(gains.argmax())
        picked.append(best)
        taken[best] = torch.inf  # also where nothing is left to gain
        near = near.minimum(distances[best])
        gains = (near - distances).clamp_(min=0).sum(1, dtype=torch.float64) - taken
    return torch.tensor(picked)


def _next(apart: _Distances, near: Tensor, bounds: Tensor) -> int:
    """Return the point of the largest gain; bounds of those looked at become gains."""
    while True:
        highest, likely = bounds.topk(min(_CANDIDATES + 1, len(bounds)))
        looked_at = likely[:_CANDIDATES]
        looked_at = looked_at[highest[:_CANDIDATES] >= 0]  # the others are picked
        bounds[looked_at] = apart.gains(looked_at, near)
        found, place = bounds[looked_at].max(0)
        if len(likely) == len(looked_at) or found >= highest[-1]:
            return int(looked_at[place])


def _parts(count: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.arange(count).split(max(1, _BLOCK // count))
    return parts
