"""Contrast, names, headings and the way of the focus, as an audit would see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

_CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

_NAMES = (Path(__file__).parent / "names.js").read_text()

_FOCUSED = (Path(__file__).parent / "focus.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(browser: Browser, report_file: Path, scheme: Any) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    page.goto(report_file.as_uri())
    page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
    page.locator("[data-do='drop']").first.click()
    page.locator("[data-do='keep']").nth(1).click()
    assert page.evaluate(_CONTRAST) == []
    page.locator(".look").first.click()
    assert page.evaluate(_CONTRAST) == []
    context.close()


def test_the_contrast_check_sees_faint_text(page: Page) -> None:
    page.evaluate("document.querySelector('h1').style.color = '#ddccbb'")
    assert page.evaluate(_CONTRAST) != []


def test_everything_has_a_name_and_a_place(page: Page) -> None:
    assert page.evaluate(_NAMES) == []
    page.locator(".look").first.click()
    assert page.evaluate(_NAMES) == []


def test_the_focus_walks_down_the_page_and_is_seen(page: Page) -> None:
    page.keyboard.press("Tab")
    first = page.evaluate(_FOCUSED)
    assert first["text"] == "Skip to the content"
    walked = [first]
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        walked.append(page.evaluate(_FOCUSED))
    assert len(walked) < 80  # sixty cards are one stop with its two buttons
    assert sum(stop["card"] for stop in walked) == 3
    for stop in walked:
        assert stop["ring"], stop
        assert stop["seen"], stop
        assert stop["follows"], stop


def test_the_dialog_keeps_the_focus_and_gives_it_back(page: Page) -> None:
    page.locator(".look").nth(2).click()
    inside = "document.querySelector('dialog').contains(document.activeElement)"
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate(f"{inside} || document.activeElement === document.body")
    page.keyboard.press("Escape")
    row = "document.activeElement.closest('.card-item')?.dataset.row"
    assert page.evaluate(row) == "2"


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_it_fits_narrow_and_wide(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("[data-do='drop']").first.click()
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(over) <= 0
    page.locator(".look").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width
