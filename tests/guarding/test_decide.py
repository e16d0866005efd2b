"""What becomes of each image, by the rule."""

from dataclasses import replace

import pytest

from bezoar.data import Unreadable, noise_images
from bezoar.errors import InputError
from bezoar.guarding import Guard, Verified, decide
from bezoar.guarding.decide import Action
from tests.repair.conftest import detection_of

VERIFIED = Verified(
    num_images=6,
    unreadable=(),
    exact=(("noise/0", "noise/1", "noise/2"),),
    near=(("noise/0", "noise/4"),),
    conflicts=(),
)
BROKEN = (Unreadable(id="broken.png", reason="no image"),)


def test_nothing_found_changes_nothing() -> None:
    plan = decide(Guard(), verified=VERIFIED, found=detection_of(noise_images(6)))
    assert not plan.changes
    assert plan.actions == {}
    assert "kept as it is" in plan.summary


@pytest.mark.parametrize("wish", ["drop", "purify", "keep"])
def test_flagged_images_go_by_the_rule(wish: Action) -> None:
    found = detection_of(noise_images(6), [1, 3])
    plan = decide(Guard(flagged=wish), found=found)
    dropped = {"noise/1", "noise/3"} if wish == "drop" else set()
    assert plan.dropped == dropped
    assert plan.purifies == plan.is_purified("noise/3") == (wish == "purify")
    assert plan.keeps("noise/0")
    assert plan.changes == (wish != "keep")


def test_of_duplicates_the_first_stays() -> None:
    rule = Guard(exact_duplicates="drop", near_duplicates="drop")
    plan = decide(rule, verified=VERIFIED)
    assert plan.dropped == {"noise/1", "noise/2", "noise/4"}
    assert plan.actions["noise/4"] == ("drop", "shows the same as noise/0")


def test_dropping_goes_before_purifying_and_people_before_both() -> None:
    found = detection_of(noise_images(6), [1, 3])
    rule = Guard(flagged="purify", exact_duplicates="drop")
    plan = decide(
        rule,
        verified=VERIFIED,
        found=found,
        unreadable=BROKEN,
        decisions={"noise/2": "keep", "noise/5": "drop"},
    )
    assert plan.dropped == {"noise/1", "noise/5", "broken.png"}
    assert plan.is_purified("noise/3")
    assert plan.keeps("noise/2")
    assert not replace(plan, purify_all=True).is_purified("noise/2")
    assert replace(plan, purify_all=True).is_purified("noise/0")
    assert plan.summary == "3 dropped, 1 purified"


def test_a_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="relearnt_rate"):
        Guard(relearnt_rate=0)
