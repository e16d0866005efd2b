"""The stripes of SIG, column by column."""

import math

import pytest
import torch

from bezoar.attacks import SIG
from bezoar.attacks.sig import sinusoid_row, wrapped_row
from bezoar.errors import InputError


def flat(level: int, *, width: int = 32) -> torch.Tensor:
    return torch.full((2, 3, 4, width), level, dtype=torch.uint8)


def test_the_sinusoid_is_added_column_by_column_and_clipped() -> None:
    for level in (0, 7, 100, 255):
        # 1e-9: sin(pi) is not quite 0 in floating point
        waves = [40 * math.sin(2 * math.pi * j * 6 / 32) + 1e-9 for j in range(32)]
        expected = [min(255, max(0, math.floor(level + w))) for w in waves]
        found = SIG().apply(flat(level))
        assert found.equal(torch.tensor(expected).byte().expand_as(found))


def test_the_sinusoid_has_its_height_and_its_period() -> None:
    row = sinusoid_row(64, delta=0.1, frequency=8)
    assert row.max() == pytest.approx(25.5)  # the quarter of a wave is a column
    assert row.min() == pytest.approx(-25.5)
    torch.testing.assert_close(row[:56], row[8:])
    assert row.sum().abs() < 1e-9


def test_the_wrapped_form_has_the_values_of_the_common_file() -> None:
    row = wrapped_row(32)
    assert row[:8].tolist() == [0, 14, 19, 13, 255, 241, 237, 244]
    # Cut to int8 and read as uint8, which is how they came about.
    waves = (20 * torch.sin(0.8 * torch.arange(32, dtype=torch.float64))).trunc()
    assert row.byte().equal(waves.to(torch.int8).view(torch.uint8))


def test_the_wrapped_form_is_blended_in_at_a_fifth() -> None:
    found = SIG(form="wrapped").apply(flat(100))
    expected = [80, 82, 83, 82, 131, 128, 127, 128]  # 80 + 0.2 w, cut
    assert found[..., :8].equal(torch.tensor(expected).byte().expand(2, 3, 4, 8))


def test_images_too_narrow_for_the_stripes_are_refused() -> None:
    SIG().apply(flat(0, width=13))
    with pytest.raises(InputError, match="frequency 6, got 4x12; give larger"):
        SIG().apply(flat(0, width=12))  # where sin(pi j) draws nothing at all


def test_the_trigger_tells_the_row_that_is_applied() -> None:
    row = SIG(delta=0.2, frequency=3).trigger((3, 4, 32))["row"]
    found = SIG(delta=0.2, frequency=3).apply(flat(100))[0, 0, 0]
    assert found.equal((100 + row + 1e-6).floor().byte())
    assert SIG(form="wrapped").trigger((3, 4, 9))["row"].equal(wrapped_row(9))
