"""One page from a report alone: whole, small, quiet, and nobody's text is markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from bezoar.data import noise_images
from bezoar.errors import InputError, StorageError
from bezoar.report import (
    Report,
    card,
    choose,
    detection_sections,
    make_report,
    make_verdict,
    measured,
    read_report,
    render,
    run_facts,
    step,
    steps,
    verdict_of,
    write_page,
)
from bezoar.report.histogram import drawn
from bezoar.report.page import embedded, shown
from bezoar.storage import write_json
from tests.report.conftest import HOSTILE
from tests.report.test_sections import big


class Reader(HTMLParser):
    """Collects tags, attributes and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_endtag(self, _: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.raw:
            self.raw[self._open][-1] += data
        else:
            self.text += data


def test_the_verdict_comes_first_in_words(report: Report) -> None:
    text = " ".join(Reader(render(report)).text.split())
    assert text.index("This set seems to hold poison") < text.index("Class 1 stands")
    for words in ("12 images scored", "3 flagged", "expected false alarms"):
        assert words.split()[-1] in text
    for words in (
        "25.0 %",
        "10.0 % to 40.0 %",
        "Not tested",
        "bezoar detect '<photos>'",
    ):
        assert words in text


def test_hostile_names_are_text_and_no_markup(report: Report) -> None:
    reader = Reader(render(report))
    names = {tag for tag, _ in reader.tags}
    assert names.isdisjoint({"b" + "ase", "iframe", "object", "embed", "photos"})
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "style" not in attributes
    assert len(reader.raw["script"]) == 3  # two of data, one of ours
    data = json.loads(reader.raw["script"][0])
    assert set(HOSTILE) <= set(data["columns"]["id"])  # the exact names are kept
    assert data["columns"]["caption"][0] == "</script>\u2028<b>a dog</b>"
    page = render(report)
    for sign in ("\u202e", "\u2028"):
        assert sign not in page
    assert page.count("</script>") == 3


def test_the_page_asks_for_nothing(report: Report) -> None:
    page = render(report)
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value)
        assert tag != "link" or attributes["rel"] == "icon"
    assert not re.search(r"@import|url\(", "".join(reader.raw["style"]))
    script = reader.raw["script"][-1]
    for call in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "import(",
        "innerHTML",
        "eval",
    ):
        assert call not in script
    assert "http" not in script


def test_the_policy_allows_our_script_and_style_alone(report: Report) -> None:
    reader = Reader(render(report))
    policy = next(
        a["content"] or ""
        for tag, a in reader.tags
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, text in (
        ("script", reader.raw["script"][-1]),
        ("style", reader.raw["style"][0]),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


@pytest.mark.slow
def test_a_hundred_thousand_images_fit_in_three_mebibytes() -> None:
    found = big(100_000, 5000)
    noise = noise_images(1000, size=96)  # nothing compresses worse
    ids = tuple(found.ids[i] for i in choose(found).pictured)
    images = replace(noise, labels=found.labels[:1000], ids=ids, class_names=())
    masks = torch.randint(0, 256, (200, 96, 96), dtype=torch.uint8)
    parts = detection_sections(found.with_masks(masks, ids[:200]), images=images)
    page = render(
        make_report(
            title="t", verdict=verdict_of(found), sections=parts, run=run_facts()
        )
    )
    assert 2**20 < len(page.encode()) < 3 * 2**20
    assert "5,000" in page


def test_a_run_of_several_steps_is_one_page() -> None:
    report = make_report(
        title="guard photos",
        verdict=make_verdict("found", summary="It was cleaned.", headline="Cleaned"),
        sections=[
            steps(
                [
                    step("detect", "done", "3 flagged", seconds=1.25),
                    step("repair", "cannot run", "no model"),
                ]
            ),
            card(
                "Model",
                [
                    measured("clean accuracy", 0.5, 0.75),
                    measured("size", None, 2.0, unit="MB"),
                ],
            ),
        ],
        run=run_facts(command="bezoar guard", settings={"detect": {"steps": 3}}),
    )
    page = render(report)
    text = " ".join(Reader(page).text.split())
    for words in (
        "Cleaned",
        "cannot run",
        "no model",
        "1.2 s",
        "75.0 %",
        "2 MB",
        "detect.steps",
    ):
        assert words in text
    assert 'class="slide good"' in page


def test_the_page_is_made_from_the_file_alone(report: Report, tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"format": 1, "report": report})
    assert read_report(tmp_path) == report
    assert write_page(tmp_path).read_text() == render(report)
    write_json(tmp_path / "report.json", {"format": 1})
    with pytest.raises(StorageError, match="figures alone; run the command"):
        read_report(tmp_path)
    write_json(tmp_path / "report.json", {"report": {"version": 1}})
    with pytest.raises(InputError, match="at report"):
        write_page(tmp_path)


def test_characters_that_steer_the_eye_are_escapes() -> None:
    assert shown("a\u202eb\x1b[2J\u200bc\u2028\ud800") == (
        "a\\u{202e}b\\u{1b}[2J\\u{200b}c\\u{2028}\\u{d800}"
    )
    assert shown("Größe 猫 😀") == "Größe 猫 😀"


def test_embedded_json_is_ascii_and_closes_nothing() -> None:
    text = "</script><!-- & \u2028 猫"
    plain = str(embedded({"name": text}))
    assert plain.isascii()
    assert not set("<>&") & set(plain)
    assert json.loads(plain) == {"name": text}


def test_bars_fill_the_axis_and_single_images_are_seen() -> None:
    plot = drawn(
        {
            "edges": [0, 1, 2, 3],
            "counts": [10_000, 0, 1],
            "flagged": [0, 0, 1],
            "threshold": 2.5,
        }
    )
    assert [bar["left"] for bar in plot["bars"]] == [0.0, 66.667]
    assert plot["bars"][1]["flagged_height"] == 2
    assert plot["bars"][0]["height"] == 180
    assert plot["threshold"] == pytest.approx(83.333)
    assert all(0 <= tick["at"] <= 100 for tick in plot["ticks"])
    assert len({tick["text"] for tick in plot["ticks"]}) == len(plot["ticks"]) > 3
