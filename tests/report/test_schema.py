"""A report is checked against its schema, place by place."""

import copy
import json
from typing import Any

import pytest

from bezoar.errors import InputError
from bezoar.report import Report, check_report, schema

Path = tuple[str | int, ...]
GALLERY: Path = ("sections", 2)


def changed(report: Report, path: Path, value: object) -> Report:
    told: Any = copy.deepcopy(report)
    place = told
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return dict(told)


def test_a_report_is_as_the_schema_has_it_and_plain(report: Report) -> None:
    assert check_report(json.loads(json.dumps(report))) == report
    kinds = [part["type"] for part in report["sections"]]
    assert kinds == ["notes", "histogram", "gallery", "table"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("version",), 2, "version 1, got 2"),
        (("verdict", "tone"), "loud", "report.verdict.tone"),
        (("verdict", "headline"), KeyError, "the key 'headline'"),
        (("verdict", "more"), 1, "only the keys"),
        (("verdict", "num_flagged"), -1, "0 or more"),
        (("verdict", "num_flagged"), True, "integer"),
        (("verdict", "poison_rate"), float("inf"), "number or null"),
        (("verdict", "poison_rate_interval"), [0.1], "2 to 2 items"),
        (("sections", 0, "type"), "song", "a type such as facts"),
        (("sections", 0, "items", 0), 3, "report.sections[0].items[0]"),
        (("sections", 1, "counts", 0), -1, "0 or more"),
        (("sections", 1, "counts"), [1], "counts for 60 bins"),
        (("sections", 3, "columns"), ["class"], "rows of 1 cells"),
        ((*GALLERY, "columns", "score"), [1.0], "columns of one length"),
        ((*GALLERY, "columns", "id", 1), "dog/7.png", "each id once"),
        ((*GALLERY, "thumbnails", 0), "https://example.org/x.png", "a text like"),
        ((*GALLERY, "thumbnails", 0), "data:image/svg+xml;base64,AA", "a text like"),
        ((*GALLERY, "details", 0, "neighbours"), [99], "details of the 12 rows"),
        ((*GALLERY, "decisions"), {"dog/7.png": "maybe"}, "'keep' or 'drop'"),
        ((*GALLERY, "total"), 3, "that many images"),
        (("run", "seeds"), {"seed": "x"}, "integer"),
        (("run",), None, "object"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    report: Report, path: Path, value: object, words: str
) -> None:
    with pytest.raises(InputError, match="expected") as refused:
        check_report(changed(report, path, value))
    assert words in str(refused.value)


def test_no_report_at_all_is_refused() -> None:
    nothing: tuple[object, ...] = (None, [], "text", {})
    for value in nothing:
        with pytest.raises(InputError, match="at report"):
            check_report(value)


def test_the_schema_uses_no_keyword_that_the_check_does_not_know() -> None:
    known = {
        *("type", "enum", "const", "minimum", "pattern", "minItems", "maxItems"),
        *("items", "required", "properties", "additionalProperties"),
        *("$ref", "oneOf", "anyOf", "$defs", "$schema", "title", "description"),
    }

    def keywords(rule: Any) -> set[str]:
        found = set(rule)
        for key, value in rule.items():
            if key in ("properties", "$defs"):
                for inner in value.values():
                    found |= keywords(inner)
            elif isinstance(value, dict):
                found |= keywords(value)
            elif key in ("oneOf", "anyOf"):
                for inner in value:
                    found |= keywords(inner)
        return found

    assert keywords(schema()) <= known
