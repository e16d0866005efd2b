"""Decisions of a person are applied, and anything else is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from bezoar.errors import InputError, StorageError
from bezoar.report import Decisions, read_decisions
from bezoar.results import Detection

GOOD: dict[str, Any] = {
    "format": "bezoar.decisions",
    "version": 1,
    "title": "detect photos",
    "data": "abc",
    "decisions": {"dog/7.png": "keep", "dog/8.png": "drop"},
}


def saved(folder: Path, value: object) -> Path:
    path = folder / "decisions.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_what_is_kept_is_not_flagged_and_what_is_dropped_is(
    found: Detection, tmp_path: Path
) -> None:
    decided = read_decisions(saved(tmp_path, GOOD)).apply(found, data="abc")
    flagged = [i for i, f in zip(decided.ids, decided.flagged, strict=True) if f]
    assert flagged == [found.ids[1], "dog/4.png", "dog/8.png"]
    reasons = dict(zip(decided.ids, decided.reasons, strict=True))
    assert reasons["dog/7.png"] == ""
    assert reasons["dog/8.png"] == "dropped by hand"
    assert reasons["dog/4.png"] == "small & sure"
    assert decided.verdict is found.verdict
    assert found.flagged.sum() == 3  # the caller's detection stays as it was
    assert decided.flagged is not found.flagged


def test_a_drop_that_was_flagged_keeps_its_reason(found: Detection) -> None:
    decided = Decisions(by_id={"dog/7.png": "drop"}).apply(found)
    assert decided.reasons == found.reasons
    assert "1 to drop, 0 to keep" in Decisions(by_id={"dog/7.png": "drop"}).remark()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "else"}, "format 'else'"),
        ({"version": 2}, "version 2"),
        ({"version": True, "format": ["x"]}, "format"),
        ({"extra": 1}, "the keys"),
        ({"data": 3}, "no text"),
        ({"decisions": ["dog/7.png"]}, "no table"),
        ({"decisions": {"dog/7.png": "maybe"}}, "'maybe' for 'dog/7.png'"),
        ({"decisions": {"dog/7.png": ["keep"]}}, "['keep']"),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match="expected decisions that the page") as refused:
        read_decisions(saved(tmp_path, {**GOOD, **change}))
    assert words in str(refused.value)


def test_damage_is_refused(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"a": NaN}', "[" * 100_000):
        with pytest.raises(StorageError, match="expected JSON"):
            read_decisions(saved(tmp_path, text))
    with pytest.raises(StorageError, match="No such file"):
        read_decisions(tmp_path / "none.json")


def test_a_file_of_absurd_size_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bezoar.report.decisions.MAX_BYTES", 10)
    with pytest.raises(InputError, match="bytes"):
        read_decisions(saved(tmp_path, GOOD))


def test_decisions_on_other_images_are_refused(found: Detection) -> None:
    decisions = Decisions(by_id={"x.png": "keep", "dog/7.png": "keep"}, data="abc")
    with pytest.raises(InputError, match=r"'x\.png' and 0 more that are not in it"):
        decisions.apply(found)
    with pytest.raises(InputError, match="on this set"):
        decisions.apply(found, data="other")
