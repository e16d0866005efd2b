"""Medoids against the greedy algorithm written out, and a guarantee that it has."""

import itertools

import pytest
import torch
from torch import Tensor

from bezoar.errors import InputError
from bezoar.metrics.facility_location import clusters, facility_location
from bezoar.runtime import generator


def apart(points: Tensor) -> Tensor:
    return (points[:, None] - points[None]).double().square().sum(2).sqrt()


def objective(points: Tensor, medoids: list[int]) -> float:
    distances = apart(points)
    similarity = distances.max() - distances
    return similarity[:, medoids].amax(1).sum().item()


def greedy(points: Tensor, num_medoids: int) -> list[int]:
    picked: list[int] = []
    for _ in range(num_medoids):
        left = [i for i in range(len(points)) if i not in picked]
        picked.append(max(left, key=lambda i: objective(points, [*picked, i])))
    return picked


def gradients(count: int, seed: int, *, sharp: float = 2.0) -> Tensor:
    logits = sharp * torch.randn(count, 4, generator=generator(seed, "facility"))
    logits[:, 0] += sharp
    return logits.softmax(1) - torch.tensor([1.0, 0.0, 0.0, 0.0])


@pytest.fixture(params=["all gains", "some gains"], autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points go the way of many as well, and have to come to the same."""
    if request.param == "some gains":
        monkeypatch.setattr("bezoar.metrics.facility_location._SMALL", 0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("count", "num_medoids"), [(12, 12), (40, 9), (60, 30)])
def test_picks_are_those_of_the_greedy_algorithm(
    seed: int, count: int, num_medoids: int
) -> None:
    # Two that are nearest to each other gain the same, so the values are compared.
    points = gradients(count, seed)
    picks = facility_location(points, num_medoids=num_medoids).tolist()
    assert len(set(picks)) == num_medoids
    for done in range(num_medoids):
        left = [i for i in range(count) if i not in picks[:done]]
        best = max(objective(points, [*picks[:done], i]) for i in left)
        assert objective(points, picks[: done + 1]) == pytest.approx(best, abs=1e-5)
    whole = objective(points, greedy(points, num_medoids))
    assert objective(points, picks) == pytest.approx(whole, rel=1e-3)


def test_near_points_are_told_apart() -> None:
    # Surely classified images have gradients near 0, and near each other: products in
    # float32 would have no digits left.
    points = 1e-4 * torch.rand(50, 3, generator=generator(0, "near")) + 0.5
    found = facility_location(points, num_medoids=10).tolist()
    assert objective(points, found) == pytest.approx(
        objective(points, greedy(points, 10)), rel=1e-6
    )


def test_equal_points_give_the_same_objective() -> None:
    points = gradients(10, 0).repeat(3, 1)  # the pick of equals is free, its worth not
    found = facility_location(points, num_medoids=12).tolist()
    assert len(set(found)) == 12
    assert objective(points, found) == pytest.approx(
        objective(points, greedy(points, 12)), rel=1e-6
    )
    assert facility_location(torch.zeros(5, 2), num_medoids=3).unique().numel() == 3


def test_the_greedy_guarantee_holds() -> None:
    points = gradients(14, 3)
    best = max(objective(points, list(s)) for s in itertools.combinations(range(14), 4))
    found = facility_location(points, num_medoids=4).tolist()
    assert objective(points, found) >= (1 - 1 / torch.e) * best


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    points = gradients(70, 1)
    whole = facility_location(points, num_medoids=20)
    monkeypatch.setattr("bezoar.metrics.facility_location._BLOCK", 150)
    assert facility_location(points, num_medoids=20).equal(whole)
    assert clusters(points, whole).sizes.sum() == 70


def test_points_join_the_nearest_medoid() -> None:
    points = gradients(50, 2)
    medoids = facility_location(points, num_medoids=25)
    found, distances = clusters(points, medoids), apart(points)
    assert found.nearest.equal(distances[:, medoids].argmin(1))
    assert found.sizes.tolist() == found.nearest.bincount(minlength=25).tolist()
    is_alone = (found.sizes == 1)[found.nearest]
    assert is_alone.any()
    expected = distances[:, medoids].amin(1)
    next_one = distances.fill_diagonal_(torch.inf)[:, medoids].amin(1)
    expected[is_alone] = next_one[is_alone]
    torch.testing.assert_close(found.distance, expected.float(), atol=1e-6, rtol=1e-5)


def test_an_equal_medoid_takes_both_points() -> None:
    points = torch.tensor([[0.0], [0.0], [3.0]])
    found = clusters(points, torch.tensor([1, 0, 2]))
    assert found.sizes.tolist() == [2, 0, 1]
    assert found.distance.tolist() == [0.0, 0.0, 3.0]
    alone = clusters(points, torch.tensor([2]))
    assert alone.sizes.tolist() == [3]
    assert alone.distance.tolist() == [3.0, 3.0, 0.0]
    assert clusters(points[:1], torch.tensor([0])).distance.tolist() == [0.0]


def test_more_picks_than_points_are_refused() -> None:
    with pytest.raises(InputError, match="num_medoids from 1 to the 3 points, got 4"):
        facility_location(torch.zeros(3, 1), num_medoids=4)
