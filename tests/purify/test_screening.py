"""What a set teaches three probes: sets that we can solve, and empty ones."""

from dataclasses import replace

import pytest
import torch

from bezoar.attacks import AR, ClassNoise
from bezoar.data import ImageData, noise_images
from bezoar.errors import InputError
from bezoar.purify import screen_unlearnable
from bezoar.purify.probes import fine_detail, middle
from bezoar.purify.screening import alarms_of, compared, status_of, too_few
from bezoar.results import Screening
from bezoar.runtime import Progress, Runtime


def noise_of(num_classes: int, *, count: int = 500, size: int = 8) -> ImageData:
    """Return images that show nothing of their class."""
    data = noise_images(count, size=size)
    return replace(
        data,
        labels=torch.arange(count) % num_classes,
        class_names=tuple(map(str, range(num_classes))),
    )


def look(given: ImageData, treated: ImageData) -> Screening:
    return compared(given, treated, alarm_gap=0.15, seeds=(0,), settings={})


def test_noise_that_goes_with_the_class_is_found_and_none_is_not() -> None:
    clean = noise_of(2)
    found = look(ClassNoise(eps=0.5).poison(clean).data, clean)
    assert found.status == "found"
    assert found.found
    assert found.given["network"] > 0.9
    assert max(found.treated.values()) < 0.7  # nothing to be told: chance is a half
    assert found.gaps["pixels"] == found.given["pixels"] - found.treated["pixels"]
    still = look(clean, clean)
    assert still.status == "nothing found"
    assert set(still.gaps.values()) == {0.0}


def test_noise_that_starts_anew_in_each_image_is_found_by_its_texture() -> None:
    clean = noise_of(5, size=16)
    # faint and even, so that the texture is that of what is added
    clean = replace(clean, images=clean.images // 64 + 96)
    found = look(AR(length=2.0).poison(clean).data, clean)
    assert found.status == "found"
    assert found.gaps["texture"] > 0.3 > found.gaps["pixels"]


def test_classes_that_are_told_anyway_leave_it_undecided() -> None:
    plain = ClassNoise(eps=0.5).poison(noise_of(2)).data  # as if by nature
    told = look(plain, plain)
    assert told.status == "undecided"
    assert told.treated["network"] >= 0.9


def test_the_verdict_follows_gaps_and_base() -> None:
    alarms = alarms_of(0.15)
    assert alarms == {"network": 0.15, "pixels": 0.3, "texture": 0.3}
    base = {"network": 0.5, "pixels": 0.25, "texture": 0.25}
    cases = {
        ("network", 0.125): "nothing found",
        ("network", 0.25): "found",
        ("texture", 0.25): "nothing found",
        ("texture", 0.5): "found",
    }
    for (probe, gap), status in cases.items():
        given = {**base, probe: base[probe] + gap}
        assert status_of(given, base, alarms=alarms) == status
    easy = {**base, "network": 0.9}
    assert status_of(easy, easy, alarms=alarms) == "undecided"
    assert status_of(base, base, alarms=alarms_of(None)) == "undecided"


def test_too_few_images_are_said_to_be_so_and_cost_nothing() -> None:
    seen: list[Progress] = []
    data = noise_of(2, count=40)
    told = screen_unlearnable(data, runtime=Runtime(progress=seen.append))
    assert told.status == "not scoreable"
    assert "40 of 2 classes" in told.summary
    assert not seen
    bare = replace(data, labels=torch.full((40,), -1), class_names=())
    assert "no labels" in too_few(bare)
    with pytest.raises(InputError, match="expected an alarm_gap between 0 and"):
        screen_unlearnable(data, alarm_gap=0.5)


def test_the_same_seed_gives_the_same_figures_and_progress_ends() -> None:
    seen: list[Progress] = []
    data = noise_of(2, count=600)
    runtime = Runtime(progress=seen.append)
    one = screen_unlearnable(data, max_images=500, seed=1, runtime=runtime)
    two = screen_unlearnable(data, max_images=500, seed=1)
    assert (one.given, one.treated) == (two.given, two.treated)
    assert one.num_images == 500
    assert seen[-1].done == seen[-1].total == 2
    assert one.provenance.seconds > 0


def test_the_detail_is_what_a_mean_over_neighbours_leaves() -> None:
    one = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    found = fine_detail(one)
    assert found[0, 0, 2, 2] == pytest.approx(
        one[0, 0, 2, 2] - one[0, 0, 1:4, 1:4].mean()
    )
    assert fine_detail(torch.full((1, 1, 4, 4), 0.5)).abs().max() < 1e-6
    wide = torch.arange(100).expand(1, 1, 70, 100)
    assert middle(wide)[0, 0, 0].tolist() == list(range(18, 82))
