"""Steps: done once, taken up, skipped, failed."""

from pathlib import Path

import pytest

from bezoar.errors import EmptyError, InputError, StorageError
from bezoar.guarding import Ledger


def make() -> tuple[int, str]:
    return 7, "seven"


def fail() -> tuple[int, str]:
    raise InputError("expected a, got b; do c")


def test_a_finished_step_is_taken_up_only_under_its_key(tmp_path: Path) -> None:
    assert Ledger(tmp_path).do("count", key="a", make=make) == 7
    again = Ledger(tmp_path)
    assert again.do("count", key="a", make=fail, load=lambda: 8) == 8
    assert again.status_of("count") == "restored"
    assert again.steps[0].reason == "seven"
    other = Ledger(tmp_path)
    assert other.do("count", key="b", make=make, load=lambda: 8) == 7
    assert other.status_of("count") == "done"


def test_a_step_that_is_cut_short_is_forgotten(tmp_path: Path) -> None:
    def stop() -> tuple[int, str]:
        raise KeyboardInterrupt

    Ledger(tmp_path).do("count", key="a", make=make)
    with pytest.raises(KeyboardInterrupt):
        Ledger(tmp_path).do("count", key="b", make=stop, load=lambda: 8)
    # its files may be half those of "b": what was done under "a" no longer counts
    assert Ledger(tmp_path).do("count", key="a", make=make, load=lambda: 8) == 7


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    def gone() -> int:
        raise StorageError("expected a file, got none; make it")

    Ledger(tmp_path).do("count", key="a", make=make)
    assert Ledger(tmp_path).do("count", key="a", make=make, load=gone) == 7


def test_errors_on_purpose_end_a_step_and_others_the_run(tmp_path: Path) -> None:
    def nothing() -> tuple[int, str]:
        raise EmptyError("expected images, got none; give some")

    ledger = Ledger(tmp_path, skip=["rest"])
    assert ledger.do("count", key="a", make=fail) is None
    assert ledger.steps[0].status == "failed"
    assert ledger.steps[0].reason == "expected a, got b; do c"
    assert ledger.do("rest", key="a", make=fail) is None
    assert ledger.status_of("rest") == "skipped"
    with pytest.raises(EmptyError):
        ledger.do("more", key="a", make=nothing)
    ledger.pass_over("last", "cannot run", "there is no model")
    rows = {s.name for s in Ledger(tmp_path).earlier.values()}
    assert rows == set()  # none of these is done


def test_a_later_step_of_an_earlier_run_is_kept_until_its_turn(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    first.do("one", key="a", make=make)
    first.do("two", key="a", make=make)
    Ledger(tmp_path).do("one", key="b", make=make)  # and then the run was killed
    again = Ledger(tmp_path)
    again.do("one", key="b", make=fail, load=lambda: 1)
    assert again.do("two", key="a", make=fail, load=lambda: 2) == 2


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text('{"steps": [{"what": 1}]}')
    with pytest.raises(StorageError, match="something else"):
        Ledger(tmp_path)
