"""A page with a thousand thumbnails and hostile names, and a browser to open it in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from bezoar.data import ImageData, digit_images
from bezoar.report import (
    card,
    choose,
    detection_sections,
    make_report,
    measured,
    picture,
    pictures,
    render,
    run_of,
    step,
    steps,
    verdict_of,
)
from bezoar.results import ClassEvidence, Detection, Provenance, Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# Without the package the modules cannot be read; pip install -e '.[dev]' brings it.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-quic", "--no-first-run", "--disable-component-update"),
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "zero/<img src=x onerror='window.pwned=1'>.png"
TURNED = "zero/\u202egnp.exe"
CAPTION = "</script><script>window.pwned=2</script>"
NUM_IMAGES = 1797


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as Debian packs it; without one the tests are skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium on this machine; apt-get install chromium brings it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def detection() -> Detection:
    """Digits of which a tenth of the zeros is flagged; two names are hostile."""
    data = digit_images()
    names = [f"{data.class_names[c]}/{i:04d}.png" for i, c in enumerate(data.labels)]
    zeros = (data.labels == 0).nonzero().flatten()
    names[int(zeros[0])], names[int(zeros[1])] = HOSTILE, TURNED
    flagged = torch.zeros(NUM_IMAGES, dtype=torch.bool)
    flagged[zeros[:18]] = True
    scores = torch.linspace(0, 3, NUM_IMAGES).flip(0) + 4 * flagged
    evidence = ClassEvidence(
        label=0, num_images=178, median=3.0, excess=0.1, z=8.0, num_flagged=18,
        status="found", transplant_rate=0.97, control_rate=0.02,
    )  # fmt: skip
    found = Detection(
        ids=tuple(names),
        labels=data.labels,
        class_names=("<i>zero</i>", *data.class_names[1:]),
        scores=scores,
        p_values=torch.linspace(1, 0, NUM_IMAGES),
        flagged=flagged,
        reasons=tuple("few pixels" if f else "" for f in flagged.tolist()),
        columns={},
        verdict=Verdict(
            status="found",
            rule="class_scan",
            summary="One class has more images that are decided by a small part.",
            num_flagged=18,
            expected_false_alarms=2.0,
            poison_rate=0.01,
            poison_rate_interval=(0.005, 0.02),
            target_class=0,
            classes=(evidence,),
            health=("a remark",),
        ),
        provenance=Provenance(
            method="m", settings={"a": 1}, seed=0, seconds=1.0, forwards_per_image=1.0
        ),
    )
    top = tuple(found.ids[i] for i in choose(found).pictured[:4])
    return found.with_masks(torch.full((4, 8, 8), 200, dtype=torch.uint8), top)


@pytest.fixture(scope="session")
def report_file(detection: Detection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that detection, with parts of every kind."""
    data = digit_images()
    shown = choose(detection).pictured
    images = ImageData(
        images=data.images[shown],
        labels=detection.labels[shown],
        ids=tuple(detection.ids[i] for i in shown),
        class_names=detection.class_names,
    )
    address = picture(data.images[0])
    report = make_report(
        title="detect <photos>",
        verdict=verdict_of(detection),
        sections=[
            steps([step("detect", "done", "18 flagged", seconds=1.0),
                   step("repair", "cannot run", "no model"), step("x", "failed", "y")]),
            card("Model", [measured("clean accuracy", 0.9, 0.8),
                           measured("success", 1.0, 0.0, better="lower")]),
            pictures("Before and after", ("before", "after"),
                     [("a.png", "30 dB", (address, address))]),
            *detection_sections(
                detection,
                images=images,
                vectors=images.images.float().flatten(1),
                captions={HOSTILE: CAPTION},
            ),
        ],
        run=run_of(detection.provenance, command="bezoar detect '<photos>' --out run"),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(report))
    return path


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile, wide and light."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light"
    )
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def requests() -> list[str]:
    """What the page asked for."""
    return []


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of."""
    return []


@pytest.fixture
def page(
    context: BrowserContext,
    report_file: Path,
    requests: list[str],
    complaints: list[str],
) -> Page:
    """The page, opened from the disk."""
    opened = context.new_page()
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(report_file.as_uri())
    return opened
