"""Both sides of MIMIC's benchmark do the same work in different amounts."""

import pytest

from bezoar.bench import mimic


def test_a_step_costs_seven_forward_passes_instead_of_thirteen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mimic, "_LEFT", 2)
    plain, ours = (mimic._gmacs(side) for side in mimic._steps(leaks=True))
    # Three passes forward and back, two of the teacher and one back, against two
    # forward and back and one of the teacher. First layers need no slope to images.
    assert plain / ours == pytest.approx(13 / 7, rel=0.05)


def test_the_first_phase_runs_the_encoder_once() -> None:
    plain, ours = (mimic._gmacs(side) for side in mimic._phases())
    assert plain > 5 * ours  # the critics are the rest
