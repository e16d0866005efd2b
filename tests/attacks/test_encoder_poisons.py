"""CTRL and SSL-Backdoor: what they add, to which images, and where."""

import math

import pytest
import torch

from bezoar.attacks import CTRL, SSLBackdoor
from bezoar.attacks.ssl_backdoor import colour_patch
from bezoar.bench.reference.ctrl import ctrl_plain
from bezoar.data import noise_images
from bezoar.errors import InputError

DATA = noise_images(100, size=32)
TO_UV = torch.tensor(
    [
        [-0.299 * 0.492, -0.587 * 0.492, 0.886 * 0.492],
        [0.701 * 0.877, -0.587 * 0.877, -0.114 * 0.877],
    ],
    dtype=torch.float64,
)
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def test_ctrl_changes_u_and_v_by_two_coefficients_of_100_each() -> None:
    added = CTRL().trigger((3, 32, 32))["pattern"]
    change = torch.einsum("kc,chw->khw", TO_UV, added)
    for channel in change:  # Parseval
        assert channel.norm().item() == pytest.approx(100 * math.sqrt(2), abs=1e-9)
    luma = torch.einsum("c,chw->hw", LUMA, added)
    assert luma.abs().max() < 1e-9  # brightness stays


def test_ctrl_is_the_transform_there_and_back() -> None:
    attack = CTRL()
    found = attack.apply(DATA.images[:4])
    for image, changed in zip(DATA.images[:4], found, strict=True):
        plain = ctrl_plain(image.double(), magnitude=100.0, positions=(15, 31))
        expected = (plain + 1e-6).floor().clamp(0, 255)
        assert changed.double().equal(expected)


@pytest.mark.parametrize("attack", [CTRL(poison_rate=0.04), SSLBackdoor()])
def test_only_images_of_the_class_change_and_labels_stay(
    attack: CTRL | SSLBackdoor,
) -> None:
    found = attack.poison(DATA, seed=3)
    changed = (found.data.images != DATA.images).flatten(1).any(1)
    assert changed.equal(found.is_poison)
    assert int(changed.sum()) == round(attack.poison_rate * 100)
    assert found.data.labels.equal(DATA.labels)
    assert set(found.original_labels[found.is_poison].tolist()) == {0}
    again = attack.poison(DATA, seed=3)
    assert again.data.images.equal(found.data.images)
    assert not attack.poison(DATA, seed=4).is_poison.equal(found.is_poison)


def test_the_ctrl_of_the_test_is_that_of_the_training() -> None:
    found = CTRL().poison(DATA)
    assert found.data.images[found.is_poison].equal(
        CTRL().apply(DATA.images[found.is_poison])
    )


def corners(attack: SSLBackdoor, images: torch.Tensor, changed: torch.Tensor) -> list:  # type: ignore[type-arg]
    patch = attack.trigger((3, 32, 32))["patch"]
    size, places = attack.patch_size, []
    for before, after in zip(images, changed, strict=True):
        touched = (before != after).any(0).nonzero()
        top, left = touched.min(0).values.tolist()
        window = after[:, top : top + size, left : left + size]
        assert window.equal(patch)
        outside = before.clone()
        outside[:, top : top + size, left : left + size] = patch
        assert after.equal(outside)
        places.append((top, left))
    return places


def test_the_patch_lies_whole_within_the_shares_of_the_image() -> None:
    attack = SSLBackdoor(poison_rate=0.08)
    dark = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    dark[:, 0, 0, 0] = torch.arange(200)  # each image an own name
    found = corners(attack, dark, attack.apply(dark))
    tops = [top for top, _ in found]
    assert min(tops) >= 3
    assert max(tops) + 6 <= 29
    assert len(set(found)) > 100
    poisoned = attack.poison(DATA)
    rows = poisoned.is_poison
    for top, left in corners(attack, DATA.images[rows], poisoned.data.images[rows]):
        assert min(top, left) >= 8
        assert max(top, left) + 6 <= 24


def test_a_place_depends_on_the_image_alone() -> None:
    attack = SSLBackdoor()
    together = attack.apply(DATA.images[:6])
    assert attack.apply(DATA.images[3:4]).equal(together[3:4])
    assert not colour_patch(6, seed=0).equal(colour_patch(6, seed=1))


def test_what_does_not_fit_is_told() -> None:
    small = noise_images(3, size=8).images
    with pytest.raises(InputError, match="32x32"):
        CTRL().apply(small)
    with pytest.raises(InputError, match="3 channels"):
        CTRL().apply(DATA.images[:, :1])
    with pytest.raises(InputError, match="6x6 patch"):
        SSLBackdoor().poison(noise_images(40, size=8))
    with pytest.raises(InputError, match="positions"):
        CTRL(positions=())
    with pytest.raises(InputError, match="poison_rate"):
        SSLBackdoor(poison_rate=0.5)
    with pytest.raises(InputError, match="magnitude"):
        CTRL(magnitude=0.0)
