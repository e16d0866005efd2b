"""The page in a browser: quiet, quick, and deaf to what names and captions say."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from bezoar.cli.main import main
from bezoar.data import noise_images, open_source, write_images
from bezoar.models import Architecture, save_model
from bezoar.report import read_decisions
from bezoar.results import Detection
from bezoar.storage import load_detection
from docs.screenshot import LARGEST, photograph
from tests.browser.conftest import CAPTION, HOSTILE, TURNED

PAGE = 60
_TURN = """() => new Promise((done) => {
  const start = performance.now();
  document.querySelector("[data-next]").click();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
})"""

_INTRUDER = """(port) => {
  const script = document.createElement("script");
  script.textContent = "window.pwned = 3";
  document.body.append(script);
  const image = document.createElement("img");
  image.src = `http://127.0.0.1:${port}/x.png`;
  document.body.append(image);
  document.body.insertAdjacentHTML("beforeend", "<b onclick='pwned=4'>x</b>");
  document.body.lastElementChild.click();
  fetch(`http://127.0.0.1:${port}/`).catch(() => 0); // not waited for: none answers
}"""


def names(page: Page) -> list[str]:
    """Return the names on the page, as a reader sees them."""
    return page.locator(".file").all_inner_texts()


def count(page: Page) -> str:
    return page.locator("[data-count]").inner_text()


def test_it_opens_from_the_disk_and_asks_for_nothing(
    page: Page, report_file: Path, requests: list[str], complaints: list[str]
) -> None:
    expect(page.locator("h1")).to_have_text("This set seems to hold poison")
    page.locator(".look").first.click()
    page.keyboard.press("Escape")
    page.mouse.wheel(0, 5000)
    page.wait_for_timeout(200)
    assert {url for url in requests if not url.startswith("data:")} == {
        report_file.as_uri()
    }
    assert complaints == []
    broken = "imgs => imgs.filter(i => i.complete && i.naturalWidth === 0).length"
    assert page.locator("img").evaluate_all(broken) == 0


def test_the_policy_keeps_even_an_intruder_quiet(page: Page) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        page.evaluate(_INTRUDER, server.getsockname()[1])
        with pytest.raises(TimeoutError):  # nobody called
            server.accept()
    assert page.evaluate("window.pwned") is None


def test_hostile_names_and_captions_change_nothing(page: Page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("main b:text('photos'), photos").count() == 0
    item = page.locator(".card-item", has_text="onerror")
    assert item.count() == 1
    item.locator(".look").click()
    expect(page.locator("#look-title")).to_have_text(HOSTILE)
    assert CAPTION in page.locator("[data-look]").inner_text()
    assert "<i>zero</i>" in page.locator("[data-look]").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("window.pwned") is None
    shown = page.locator(".card-item", has_text="202e").locator(".file").inner_text()
    assert shown == TURNED.partition("/")[2].replace("\u202e", "\\u{202e}")
    assert "\u202e" not in page.locator("body").inner_text()


def test_the_picture_in_the_readme_can_be_taken_anew(
    browser: Browser, report_file: Path
) -> None:
    taken = photograph(report_file, browser=browser)
    assert taken.startswith(b"\x89PNG")
    assert 10_000 < len(taken) <= LARGEST


def test_it_sorts(page: Page) -> None:
    sort = page.locator("[data-sort]")
    flagged = page.locator(".mark").count()
    assert flagged == 18
    sort.select_option("id")
    by_name = page.locator(".look").evaluate_all("all => all.map(b => b.title)")
    assert by_name == sorted(by_name)
    assert by_name[0].startswith("0/")
    sort.select_option("score")
    assert page.locator(".mark").count() == 0
    sort.select_option("rank")
    scores = [
        float(text.split()[-1])
        for text in page.locator(".meta > :last-child").all_inner_texts()
    ]
    assert scores == sorted(scores, reverse=True)
    sort.select_option("label")
    assert "<i>zero</i>" in page.locator(".meta").first.inner_text()


def test_it_filters(page: Page) -> None:
    assert count(page) == "1 to 60 of 1,000 images"
    page.locator("[data-show]").select_option("flagged")
    assert count(page).startswith("1 to 18 of 18 images (1,000 without")
    page.locator("[data-find]").fill("ONERROR")
    expect(page.locator("[data-count]")).to_contain_text("1 to 1 of 1 images")
    page.locator("[data-find]").fill("no such name")
    expect(page.locator(".empty")).to_be_visible()
    page.locator("[data-find]").fill("")
    page.locator("[data-show]").select_option("unflagged")
    expect(page.locator(".mark")).to_have_count(0)
    page.locator("[data-show]").select_option("all")
    page.locator("[data-class]").select_option("3")
    assert set(page.locator(".meta > :first-child").all_inner_texts()) == {"3"}


def test_it_turns_through_a_thousand_thumbnails_without_a_stall(page: Page) -> None:
    seen = set(names(page))
    took = []
    while not page.locator("[data-next]").first.is_disabled():
        took.append(page.evaluate(_TURN))
        assert 0 < len(names(page)) <= PAGE  # never more than one page of them
        seen |= set(names(page))
    assert len(took) == 16
    assert len(seen) == 1000
    # A tenth of a second passes for at once; the rest is for a busy machine.
    assert sorted(took)[len(took) // 2] < 150
    assert max(took) < 1000


def test_the_keyboard_does_it_all(page: Page) -> None:
    page.locator(".look").first.focus()
    focused = "document.activeElement.closest('.card-item')?.dataset.row"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "1"
    page.keyboard.press("k")
    expect(page.locator("[data-decided]")).to_have_text("0 drop, 1 keep")
    page.keyboard.press("d")
    expect(page.locator("[data-decided]")).to_have_text("1 drop, 0 keep")
    page.keyboard.press("u")
    expect(page.locator("[data-tray]")).to_be_hidden()
    page.keyboard.press("ArrowDown")
    row = page.evaluate(focused)
    assert int(row) > 2
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    assert page.evaluate(focused) == row  # back where it came from
    page.keyboard.press("PageDown")
    assert page.locator("[data-page]").first.inner_text() == "2 / 17"
    assert page.evaluate(focused) == "60"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == "59"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("kd/")  # is text, and decides nothing
    expect(page.locator("[data-tray]")).to_be_hidden()


def test_a_close_look_shows_mask_pattern_and_neighbours(page: Page) -> None:
    page.locator(".look").first.click()
    look = page.locator("[data-look]")
    assert look.locator(".evidence img").count() == 3
    assert look.locator(".near button").count() == 6
    title = page.locator("#look-title").inner_text()
    look.locator(".near button").first.click()
    assert page.locator("#look-title").inner_text() != title
    look.get_by_role("button", name="keep").click()
    assert look.get_by_role("button", name="keep").get_attribute("aria-pressed")
    expect(page.locator("[data-decided]")).to_contain_text("1 keep")


def test_what_the_filter_shows_is_decided_at_once(
    page: Page, detection: Detection, tmp_path: Path
) -> None:
    page.locator("[data-show]").select_option("flagged")
    page.locator("[data-all='keep']").click()
    expect(page.locator("[data-decided]")).to_have_text("0 drop, 18 keep")
    with page.expect_download() as download:
        page.locator("[data-save]").click()
    assert download.value.suggested_filename == "decisions.json"
    download.value.save_as(tmp_path / "decisions.json")
    decided = read_decisions(tmp_path / "decisions.json").apply(detection)
    assert not decided.flagged.any()
    page.locator("[data-undo-all]").click()
    expect(page.locator("[data-tray]")).to_be_hidden()


def test_saved_decisions_are_applied_by_detect(
    context: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = noise_images(24)
    write_images(data, Path("photos"), format="class_folders")
    architecture = Architecture(
        name="convnet", num_classes=2, width=4, class_names=data.class_names
    )
    save_model(architecture.build(), Path("m.safetensors"), architecture=architecture)
    words = ["detect", "photos", "strip", "--model", "m.safetensors", "--out", "run"]
    assert main(words) == 0
    page = context.new_page()
    page.goto((tmp_path / "run" / "report.html").as_uri())
    worst = page.locator(".look").first.get_attribute("title")
    page.locator("[data-do='drop']").first.click()
    page.locator("[data-do='keep']").nth(1).click()
    with page.expect_download() as download:
        page.locator("[data-save]").click()
    download.value.save_as("decisions.json")
    told = json.loads(Path("decisions.json").read_text())
    assert sorted(told["decisions"].values()) == ["drop", "keep"]
    assert main([*words, "--decisions", "decisions.json", "--clean", "clean"]) == 0
    found = load_detection(Path("run"))
    assert [found.ids[i] for i in found.flagged.nonzero().flatten()] == [worst]
    assert worst not in {record.id for record in open_source("clean").records()}
    page.reload()  # the page was made anew, and knows the decisions
    expect(page.locator("[data-decided]")).to_contain_text("1 drop, 1 keep")
