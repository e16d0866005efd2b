"""BadNets and the Trojan patch, pixel by pixel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bezoar.attacks import BadNets, LabelConsistent, Trojan
from bezoar.attacks.patches import Pattern, check_patch, square
from bezoar.attacks.trojan import patch_corner
from bezoar.data import noise_images
from bezoar.errors import InputError

NOISE = noise_images(2, size=32).images


def test_badnets_stamps_the_published_pattern_in_the_lower_right_corner() -> None:
    found = BadNets().apply(NOISE)
    rows = [[0, 0, 255], [0, 255, 0], [255, 255, 0]]
    for image in found:
        for channel in image:
            assert channel[29:32, 29:32].tolist() == rows


def test_the_offset_of_gtsrb_ends_at_the_centre() -> None:
    found = BadNets(offset=(16, 16)).apply(torch.zeros_like(NOISE))
    rows, columns = found[0, 0].nonzero().unbind(1)
    assert set(rows.tolist()) == set(columns.tolist()) == {13, 14, 15}


def test_an_offset_counts_rows_first() -> None:
    white = BadNets(size=1, pattern="white", offset=(2, 5))
    found = white.apply(torch.zeros_like(NOISE))
    assert found[0, 0].nonzero().tolist() == [[29, 26]]


def slow_square(size: int) -> list[list[int]]:
    """Return the adaptive pattern, pixel by pixel, as its description has it."""
    third, thirds = size // 3, 2 * size // 3

    def is_white(row: int, column: int) -> bool:
        lower_left = row >= thirds and column < thirds
        middle = third <= row < thirds and third <= column < thirds
        upper_right = row < third and column >= thirds
        return lower_left or middle or upper_right

    return [[255 * is_white(r, c) for c in range(size)] for r in range(size)]


@pytest.mark.parametrize("size", [3, 4, 5, 8, 9, 16])
def test_larger_squares_have_the_adaptive_pattern(size: int) -> None:
    assert square(size=size, pattern="official").tolist() == slow_square(size)


def test_the_other_patterns() -> None:
    assert square(size=3, pattern="checker").tolist() == [
        [255, 0, 255],
        [0, 255, 0],
        [255, 0, 255],
    ]
    assert square(size=2, pattern="white").tolist() == [[255, 255], [255, 255]]


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    channels=st.sampled_from([1, 3, 4]),
    size=st.integers(1, 6),
    offset=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    pattern=st.sampled_from(["checker", "white"]),
)
def test_a_patch_changes_its_own_pixels_alone(
    height: int,
    width: int,
    channels: int,
    size: int,
    offset: tuple[int, int],
    pattern: Pattern,
) -> None:
    images = NOISE[:, :1, :height, :width].repeat(1, channels, 1, 1)
    attack = BadNets(size=size, offset=offset, pattern=pattern)
    if size + offset[0] > height or size + offset[1] > width:
        with pytest.raises(InputError, match="give larger images"):
            attack.apply(images)
        return
    found = attack.apply(images)
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    trigger = attack.trigger((channels, height, width))
    (row, column), expected = trigger["corner"].tolist(), images.clone()
    for r in range(size):
        for c in range(size):
            expected[:, :, row + r, column + c] = trigger["patch"][r, c]
    assert found.equal(expected)
    assert (height - row - size, width - column - size) == offset


@settings(max_examples=30, deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 40))
def test_trojan_adds_its_patch_within_the_image(height: int, width: int) -> None:
    images = torch.full((1, 3, height, width), 100, dtype=torch.uint8)
    found = Trojan().apply(images)
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    row, column = patch_corner(height, width)
    trigger = Trojan().trigger((3, height, width))
    assert trigger["corner"].tolist() == [row, column]
    inside = found[0, :, row : row + 3, column : column + 3]
    assert inside.int().equal((trigger["patch"].int() + 100).clamp(max=255))
    outside = found.clone()
    outside[0, :, row : row + 3, column : column + 3] = 100
    assert outside.equal(images)


def test_trojan_has_the_published_colours_at_rows_and_columns_25_to_27() -> None:
    patch = Trojan().apply(torch.zeros_like(NOISE))[0, :, 25:28, 25:28]
    assert patch[:, 0, 0].tolist() == [207, 131, 181]
    assert patch[0].tolist() == [[207, 175, 29], [79, 137, 248], [131, 6, 246]]
    assert patch[1].tolist() == [[131, 243, 232], [8, 0, 113], [40, 145, 250]]
    assert patch[2].tolist() == [[181, 120, 179], [126, 32, 146], [4, 61, 246]]


def test_trojan_clips_instead_of_wrapping() -> None:
    white = torch.full_like(NOISE, 250)
    assert Trojan().apply(white).min() == 250


def test_label_consistent_shows_the_patch_alone_at_test_time() -> None:
    assert LabelConsistent().apply(NOISE).equal(BadNets().apply(NOISE))


def test_grey_images_are_refused_by_a_patch_of_colours() -> None:
    with pytest.raises(InputError, match="got 1 channels; convert the images"):
        Trojan().apply(NOISE[:, :1])


@pytest.mark.parametrize("attack", [BadNets(), Trojan(), LabelConsistent()])
@pytest.mark.parametrize("shape", [(2, 3, 2, 32), (2, 3, 32, 2)])
def test_images_smaller_than_the_patch_are_refused(
    attack: BadNets, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=f"got {shape[2]}x{shape[3]}; give larger"):
        attack.apply(torch.zeros(shape, dtype=torch.uint8))


def test_settings_of_a_patch_are_checked() -> None:
    with pytest.raises(InputError, match="size of at least 3 for the official pattern"):
        BadNets(size=2)
    with pytest.raises(InputError, match="size of at least 1 for the white pattern"):
        LabelConsistent(size=0, pattern="white")
    with pytest.raises(InputError, match=r"at least 0 pixels, got \(0, -1\)"):
        BadNets(offset=(0, -1))
    with pytest.raises(InputError, match="one of official, checker, white, got 'dot'"):
        check_patch(size=3, offset=(0, 0), pattern="dot")


def test_the_patch_handed_out_is_a_copy() -> None:
    before: Tensor = Trojan().apply(NOISE)
    Trojan().trigger((3, 32, 32))["patch"].zero_()
    assert Trojan().apply(NOISE).equal(before)
