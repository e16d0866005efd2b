"""The blended pattern, against exact fractions."""

import math
from fractions import Fraction

import pytest
import torch

from bezoar.attacks import Blended
from bezoar.attacks.blend import blend
from bezoar.data import noise_images

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("percent", [2, 10, 20, 33, 50, 100])
def test_every_pair_of_levels_is_truncated_as_exact_fractions_are(percent: int) -> None:
    images = LEVELS.repeat(256, 1)[None, None]  # the level is the column
    pattern = LEVELS[:, None].repeat(1, 256)[None]  # the level is the row
    found = blend(images, pattern, alpha=percent / 100)[0, 0].tolist()
    share = Fraction(percent, 100)
    expected = [
        [math.floor((1 - share) * x + share * p) for x in range(256)]
        for p in range(256)
    ]
    assert found == expected


def test_the_pattern_follows_from_its_seed_alone() -> None:
    images = noise_images(2, size=16).images
    found = Blended().apply(images)
    assert Blended(poison_rate=0.5, target_class=3).apply(images).equal(found)
    assert not Blended(pattern_seed=1).apply(images).equal(found)


def test_the_seed_of_the_choice_leaves_the_pattern() -> None:
    data = noise_images(40, size=16)
    attack = Blended(poison_rate=1.0)
    first, second = (attack.poison(data, seed=s).data.images for s in (0, 1))
    assert first.equal(second)
    assert first.equal(attack.apply(data.images))


def test_the_pattern_is_uniform_and_differs_by_channel() -> None:
    pattern = Blended().trigger((3, 64, 64))["pattern"]
    assert pattern.dtype == torch.uint8
    # mean and deviation of 0..255 are 127.5 and 73.9; 12,288 draws
    assert pattern.double().mean() == pytest.approx(127.5, abs=3)
    assert pattern.double().std() == pytest.approx(73.9, abs=2)
    assert not pattern[0].equal(pattern[1])


def test_the_trigger_is_the_pattern_itself_at_full_opacity() -> None:
    images = noise_images(2, size=16).images
    pattern = Blended().trigger((3, 16, 16))["pattern"]
    assert Blended(alpha=1.0).apply(images).equal(pattern.expand(2, -1, -1, -1))
