"""The documentation is whole, up to date, and what it shows runs."""

import ast
import contextlib
import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import bezoar
from bezoar.catalog import METHODS
from bezoar.data import digit_images
from docs import build

ROOT = Path(__file__).parent.parent
SHOWN = [p for p in build.pages(ROOT) if p.name == "README.md" or p.parts[0] == "docs"]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SKIPPED = ("cli.md",)  # made from the help, whose examples need the reader's data
# Neither pattern may match its own text below, for this file is searched too.
MACHINE_PATH = re.compile(r"(?<![\w.>}])/(?:work|root|home/\w+|Users/\w+)/")
REGISTRY = re.compile(
    r"(?:py(?:pi|thonhosted)\.org|npmjs\.(?:org|com)|(?:deb|security)\.debian\.org)"
)


def blocks(page: Path, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    for found in FENCE.finditer(text):
        assert not found[2], f"{page}: a fence takes a language and nothing more"
    return [body for kind, _, body in FENCE.findall(text) if kind == language]


def pages_with(language: str) -> list[Path]:
    return [p for p in SHOWN if p.name not in SKIPPED and blocks(p, language)]


def tracked() -> Iterator[Path]:
    """Yield the files that are or will be committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            yield Path(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with ``photos/``: what the examples find on a reader's disk."""
    data = digit_images().take(torch.arange(600))  # all classes, 50 or more of each
    for label in range(10):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = tmp_path / "photos" / str(label.item()) / f"{i}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", bezoar.__all__)
def test_every_public_name_says_what_it_does(name: str) -> None:
    text = inspect.getdoc(getattr(bezoar, name)) or ""
    first = text.partition("\n")[0]
    assert re.fullmatch(r"[A-Z].{10,}[.:]", first), f"{name}: {first!r}"
    assert not first.startswith(f"{name}("), f"{name} has only the generated text"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page(name: str) -> None:
    page = ROOT / "docs" / "methods" / f"{name.replace('-', '_')}.md"
    assert METHODS[name].__name__ in page.read_text()


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in build.pages(ROOT):
        if page.parts[0] == "docs" and page.name != "index.md":
            assert f"({page.relative_to('docs')})" in index, page


@pytest.mark.slow
@pytest.mark.example
@pytest.mark.parametrize("page", pages_with("python"), ids=str)
@pytest.mark.usefixtures("folder")
def test_examples_in_python_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for source in blocks(page, "python"):
        code = compile(ast.parse(source), str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, namespace)


@pytest.mark.slow
@pytest.mark.example
@pytest.mark.skipif(not build.has_commands(), reason="there is no command line yet")
@pytest.mark.parametrize("page", pages_with("console"), ids=str)
@pytest.mark.usefixtures("folder")
def test_examples_of_commands_run(page: Path) -> None:
    call = "import sys; from bezoar.cli.main import main; sys.exit(main())"
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", "").splitlines():
            if not line.startswith("$ bezoar"):
                continue
            words = shlex.split(line.removeprefix("$ bezoar"), comments=True)
            done = subprocess.run(
                [sys.executable, "-c", call, *words],
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                capture_output=True,
                text=True,
                check=False,
            )
            # 1 says that poison was found, which an example may well show.
            assert done.returncode in {0, 1}, f"{line}\n{done.stderr}"
            assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"


def test_links_lead_somewhere() -> None:
    assert list(build.broken_links(ROOT)) == []


def test_tables_are_those_of_the_records() -> None:
    for page, text in build.tables(ROOT).items():
        assert (ROOT / page).read_text() == text, f"{page}: run `make docs`"


@pytest.mark.slow
@pytest.mark.skipif(not build.has_commands(), reason="there is no command line yet")
def test_the_command_page_is_what_help_prints() -> None:
    found = (ROOT / build.CLI_PAGE).read_text()
    assert found == build.command_page(), "run `make docs`"


def test_nothing_names_a_machine_or_a_registry() -> None:
    for name in tracked():
        text = (ROOT / name).read_bytes().decode(errors="replace")
        for pattern in (MACHINE_PATH, REGISTRY):
            assert not pattern.search(text), f"{name}: {pattern.search(text)}"


def test_the_changelog_has_room_for_the_next_change() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]\n\n### \w+\n\n- ", text, re.MULTILINE)


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# One: *two* `three`\n")
    (tmp_path / "README.md").write_text(
        "[a](docs/a.md) [b](docs/a.md#one-two-three) [c](https://example.org/x) "
        "`[d](code.md)`\n```text\n[e](fence.md)\n```\n"
        "[f](docs/b.md) [g](docs/a.md#four) [h](#five)\n"
    )
    found = "\n".join(build.broken_links(tmp_path))
    assert found.count("\n") == 2
    for target in ("docs/b.md", "docs/a.md#four", "#five"):
        assert repr(target) in found


def test_checking_writes_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "has_commands", lambda: False)
    (tmp_path / "docs" / "records").mkdir(parents=True)
    (tmp_path / "docs" / "records" / "bench.jsonl").touch()
    page = tmp_path / "README.md"
    page.write_text("<!-- records:bench -->\nold\n<!-- /records -->\n")
    assert build.main(["--check"]) == 1
    assert "README.md: out of date; run `make docs`" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert build.main([]) == 0
    assert "Not measured yet" in page.read_text()
    assert build.main(["--check"]) == 0
