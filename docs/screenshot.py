"""Makes the picture of the report page in the README, from the demo's real results.

``python docs/screenshot.py`` takes the page of ``bezoar demo`` in ``build/demo``, which
it makes first if it is not there, and needs Chromium (on Debian: apt-get install
chromium). Digits are shown because they come with scikit-learn: pictures of other sets
must not be committed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, ViewportSize, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "report.png"
LARGEST = 300_000  # bytes
SIZE: ViewportSize = {"width": 1180, "height": 1510}
Scheme = Literal["light", "dark"]
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def photograph(page_file: Path, *, browser: Browser, scheme: Scheme = "light") -> bytes:
    """Return a picture of the top of a page as PNG with few colours."""
    context = browser.new_context(viewport=SIZE, color_scheme=scheme)
    page = context.new_page()
    page.goto(page_file.resolve().as_uri())
    page.wait_for_function("[...document.images].every(i => i.complete)")
    taken = page.screenshot()
    context.close()
    picture = Image.open(BytesIO(taken)).convert("RGB")
    file = BytesIO()
    picture.quantize(255, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Write the picture; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "build/demo/report.html")
    parser.add_argument("--out", type=Path, default=PICTURE)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    asked = parser.parse_args(arguments)
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        print("expected chromium, found none; install it", file=sys.stderr)
        return 2
    if not asked.page.exists():
        place = asked.page.parent
        subprocess.run(
            [sys.executable, "-m", "bezoar", "demo", "--out", place], check=True
        )
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=_ARGUMENTS)
        taken = photograph(asked.page, browser=opened, scheme=asked.scheme)
        opened.close()
    if len(taken) > LARGEST:
        print(f"expected at most {LARGEST} bytes, got {len(taken)}", file=sys.stderr)
        return 1
    asked.out.write_bytes(taken)
    print(f"wrote {asked.out} ({len(taken):,} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
