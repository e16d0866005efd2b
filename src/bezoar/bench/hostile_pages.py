"""Decisions that no page saved, and pages of sets whose names are markup."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import torch

from bezoar.bench import hostile
from bezoar.data.records import escaped
from bezoar.errors import BezoarError
from bezoar.report import (
    detection_sections,
    fiftyone,
    make_report,
    read_decisions,
    render,
    run_of,
    sarif,
    verdict_of,
)
from bezoar.results import Detection, Provenance, Verdict
from bezoar.storage import load_detection, save_detection, write_json

_TAGS = {
    "a", "b", "bdi", "body", "button", "circle", "code", "dd", "desc", "details",
    "dialog", "div", "dl", "dt", "figcaption", "figure", "form", "g", "h1", "h2", "h3",
    "head", "header", "html", "i", "img", "input", "kbd", "label", "li", "line", "link",
    "main", "meta", "nav", "noscript", "ol", "option", "p", "pre", "rect", "script",
    "section", "select", "span", "strong", "style", "summary", "svg", "table", "tbody",
    "td", "text", "th", "thead", "title", "tr", "ul",
}  # fmt: skip


def decisions(chance: random.Random, folder: Path) -> None:
    """Read decisions that no page saved.

    Args:
        chance: Where they come from.
        folder: An empty folder.
    """
    path = folder / "decisions.json"
    sound = {
        "format": "bezoar.decisions",
        "version": 1,
        "title": hostile.name(chance),
        "data": "",
        "decisions": {hostile.name(chance): chance.choice(("keep", "drop", "run", []))},
    }
    plain = json.dumps(sound).encode()
    path.write_bytes(
        chance.choice(
            (plain, hostile.deep_json(chance), hostile.mutated(plain, chance))
        )
    )
    with suppress(BezoarError):
        read_decisions(path).apply(_detection(chance))


def reports(chance: random.Random, folder: Path) -> None:
    """Write and read what was found in a set whose names are markup.

    Args:
        chance: Where the names come from.
        folder: An empty folder.
    """
    found = _detection(chance)
    words = hostile.name(chance)
    sections = detection_sections(
        found,
        captions=dict.fromkeys(found.ids, words),
        remarks=(words,),
        gallery_text=words,
    )
    report = make_report(
        title=words,
        verdict=verdict_of(found),
        sections=sections,
        run=run_of(found.provenance, command=words),
    )
    save_detection(found, folder / "run", extra={"report": report})
    assert load_detection(folder / "run").ids == found.ids
    page = render(report)
    _Tags().feed(page)
    assert not set(hostile.BIDI) & set(page), "marks of direction on the page"
    for log in (sarif(found, root=words, command=words), fiftyone(found)):
        write_json(folder / "log.json", log)
        text = (folder / "log.json").read_text()
        assert json.loads(text), "no JSON"
    uris = json.dumps(sarif(found)["runs"][0]["results"])
    assert "javascript:" not in uris.split('"uri": "')[-1][:11]


class _Tags(HTMLParser):
    """Checks that a page holds no element and no handler that we did not write."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, f"an element of somebody else's: {tag}"
        for key, value in attrs:
            assert not key.startswith("on"), f"a handler: {key}={value}"
            is_link = key in ("href", "src")
            assert not is_link or (value or "").startswith(("#", "data:")), value


def _detection(chance: random.Random) -> Detection:
    # Readers escape what is no Unicode; see data.records.escaped.
    ids = list(dict.fromkeys(_name(chance) for _ in range(4)))
    flagged = torch.tensor([chance.random() < 0.5 for _ in ids])
    return Detection(
        ids=tuple(ids),
        labels=torch.arange(len(ids)) % 2,
        class_names=(hostile.name(chance), "b"),
        scores=torch.arange(len(ids)).float(),
        p_values=None,
        flagged=flagged,
        reasons=tuple(_name(chance) if f else "" for f in flagged),
        columns={},
        verdict=Verdict(
            status="ranking",
            rule="none",
            summary=hostile.name(chance),
            num_flagged=int(flagged.sum()),
            expected_false_alarms=0.0,
        ),
        provenance=Provenance(
            method="strip", settings={}, seed=0, seconds=0.0, forwards_per_image=1.0
        ),
    )


def _name(chance: random.Random) -> str:
    return escaped(hostile.name(chance).replace("\ud800", "\udcff"))
