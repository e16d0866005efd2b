"""Starts for the search of a trigger: windows, and those that make images alike."""

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import noise_images
from bezoar.detect.trigger_inversion import opaque
from bezoar.detect.trigger_windows import images_scanned, window_starts, windows
from bezoar.runtime import generator


class Cornered(nn.Module):
    """Features of the middle rows, which a bright square at a place drowns."""

    def __init__(self, top: int, left: int, *, size: int = 3) -> None:
        super().__init__()
        self.rows, self.columns = slice(top, top + size), slice(left, left + size)
        self.num_shown = 0

    def forward(self, images: Tensor) -> Tensor:
        self.num_shown += len(images)
        square = images[:, :, self.rows, self.columns].mean((1, 2, 3))
        return images[:, 0, 7:9].flatten(1) - 0.25 + 100 * square[:, None] ** 4


def starts(
    encoder: nn.Module, *, count: int = 2, most: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    images = noise_images(20, size=16).images.float() / 510
    return window_starts(
        encoder,
        images,
        count=count,
        most_images=most,
        stream=generator(seed, "windows"),
    )


def test_windows_cover_the_image_and_are_all_different() -> None:
    masks = windows(16, 32)
    assert masks.sum(0).min() > 0
    assert len(masks.flatten(1).unique(dim=0)) == len(masks) == 49
    assert masks.sum((1, 2)).unique().tolist() == [5 * 11]


@pytest.mark.parametrize("corner", [(0, 0), (12, 1), (5, 11)])
def test_the_search_begins_where_the_trigger_is(corner: tuple[int, int]) -> None:
    masks, patterns = starts(Cornered(*corner))
    rows, columns = (slice(place, place + 3) for place in corner)
    best, colours = opaque(masks[0]), opaque(patterns[0])
    assert best[rows, columns].min() > 0.9
    assert colours[:, rows, columns].mean() > 0.7
    assert opaque(masks).unique().numel() == 2  # inside and outside of the window


def test_how_many_are_shown_at_a_time_changes_nothing() -> None:
    whole, part = starts(Cornered(4, 4), most=8000), starts(Cornered(4, 4), most=1)
    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_count_of_images_is_that_of_the_work() -> None:
    encoder = Cornered(0, 0)
    starts(encoder)
    assert encoder.num_shown == images_scanned((20, 3, 16, 16))


def test_no_more_starts_than_windows() -> None:
    masks, _ = starts(Cornered(0, 0), count=1000)
    assert len(masks) == 49
