"""WaNet's grid and warp, against slow versions of both."""

import math

import pytest
import torch
from torch import Tensor

from bezoar.attacks import WaNet
from bezoar.attacks.wanet import warp, warp_grid
from bezoar.data import noise_images
from bezoar.runtime import generator

IMAGES = noise_images(3, size=16).images


def cubic(t: float) -> float:
    """Return Keys' kernel with a = -0.75, which torch's bicubic uses."""
    a, t = -0.75, abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def weights(size: int, count: int) -> Tensor:
    """Return how much each control point counts for each pixel, edges repeated."""
    table = torch.zeros(size, count, dtype=torch.float64)
    for pixel in range(size):
        place = pixel * (count - 1) / (size - 1)
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            table[pixel, min(max(tap, 0), count - 1)] += cubic(place - tap)
    return table


def slow_grid(height: int, width: int, k: int, strength: float, seed: int) -> Tensor:
    stream = generator(seed, "wanet-grid", k)
    points = torch.rand((2, k, k), generator=stream, dtype=torch.float64) * 2 - 1
    points /= points.abs().mean()
    grid = torch.zeros(height, width, 2, dtype=torch.float64)
    for axis, size in ((0, width), (1, height)):
        flow = weights(height, k) @ points[axis] @ weights(width, k).T
        grid[..., axis] = strength * flow / size
    for row in range(height):
        for column in range(width):
            grid[row, column, 0] += 2 * column / (width - 1) - 1
            grid[row, column, 1] += 2 * row / (height - 1) - 1
    return grid.clamp(-1, 1)


def slow_warp(image: Tensor, grid: Tensor) -> Tensor:
    """Warp one channel pixel by pixel."""
    height, width = image.shape
    found = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x = (grid[row, column, 0].item() + 1) / 2 * (width - 1)
            y = (grid[row, column, 1].item() + 1) / 2 * (height - 1)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            value = sum(
                (1 - abs(x - c)) * (1 - abs(y - r)) * image[r, c].item()
                for r in (top, top + 1)
                for c in (left, left + 1)
            )
            found[row, column] = math.floor(value + 1e-6)
    return found


@pytest.mark.parametrize(
    ("height", "width", "k"), [(16, 16, 32), (16, 16, 4), (9, 20, 5)]
)
def test_the_grid_agrees_with_a_slow_one(height: int, width: int, k: int) -> None:
    found = warp_grid(height, width, grid_size=k, strength=0.5, grid_seed=3)
    torch.testing.assert_close(found, slow_grid(height, width, k, 0.5, 3))


def test_the_warp_agrees_with_a_slow_one() -> None:
    grid = warp_grid(16, 16, grid_size=4, strength=3.0, grid_seed=0)
    found = warp(IMAGES, grid)
    assert found[1, 2].equal(slow_warp(IMAGES[1, 2], grid))
    assert not found.equal(IMAGES)


@pytest.mark.parametrize("size", [2, 7, 16, 33])
def test_no_strength_changes_nothing(size: int) -> None:
    images = noise_images(2, size=size).images
    assert WaNet(strength=0.0).apply(images).equal(images)


def test_every_image_gets_the_same_grid() -> None:
    attack = WaNet()
    together = attack.apply(IMAGES)
    alone = torch.cat([attack.apply(IMAGES[i : i + 1]) for i in range(3)])
    assert together.equal(alone)
    assert together.equal(warp(IMAGES, attack.trigger((3, 16, 16))["grid"]))


def test_the_grid_follows_from_its_settings_alone() -> None:
    found = WaNet().trigger((3, 16, 16))["grid"]
    same = WaNet(poison_rate=0.5, target_class=3).trigger((1, 16, 16))["grid"]
    assert found.equal(same)
    for other in (WaNet(grid_seed=1), WaNet(grid_size=31), WaNet(strength=0.4)):
        assert not other.trigger((3, 16, 16))["grid"].equal(found)


def test_the_seed_of_the_choice_leaves_the_grid() -> None:
    data = noise_images(10, size=16)
    attack = WaNet(poison_rate=1.0)
    first, second = (attack.poison(data, seed=s).data.images for s in (0, 1))
    assert first.equal(second)
    assert first.equal(attack.apply(data.images))


def test_the_grid_stays_inside_the_image() -> None:
    grid = warp_grid(16, 16, grid_size=32, strength=50.0, grid_seed=0)
    assert (grid.min().item(), grid.max().item()) == (-1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_grid_of_few_points_is_smooth_and_does_not_fold(seed: int) -> None:
    """Bound the change from pixel to pixel by the slope of the kernel.

    The slopes of the four taps of Keys' kernel add up to at most 3 in absolute
    value; neighbours are 3/31 control points apart.
    """
    size, k, strength = 32, 4, 0.5
    grid = warp_grid(size, size, grid_size=k, strength=strength, grid_seed=seed)
    still = warp_grid(size, size, grid_size=k, strength=0.0, grid_seed=seed)
    pixels = (grid - still) * (size - 1) / 2
    assert pixels.abs().max() > 0.2
    stream = generator(seed, "wanet-grid", k)
    points = torch.rand((2, k, k), generator=stream, dtype=torch.float64) * 2 - 1
    highest = (points / points.abs().mean()).abs().max().item()
    overshoot = 1.375**2  # sum of the taps' absolute values at the middle, both axes
    assert pixels.abs().max() <= strength / 2 * highest * overshoot
    bound = strength / 2 * highest * 1.375 * 3 * (k - 1) / (size - 1)
    assert bound < 1  # so that no pixel overtakes its neighbour
    inside = pixels[1:-1, 1:-1]  # at the rim shifts are cut short by the clamp
    assert inside.diff(dim=0).abs().max() <= bound
    assert inside.diff(dim=1).abs().max() <= bound


def test_pixels_move_by_half_the_strength_on_average() -> None:
    def mean_shift(strength: float) -> float:
        grids = [
            warp_grid(64, 64, grid_size=64, strength=s, grid_seed=0)
            for s in (strength, 0.0)
        ]
        shift = ((grids[0] - grids[1]) * 63 / 2)[8:-8, 8:-8]  # clamped at the edges
        return shift.abs().mean().item()

    assert mean_shift(0.5) == pytest.approx(0.25, rel=0.05)
    assert mean_shift(1.0) == pytest.approx(0.5, rel=0.05)
