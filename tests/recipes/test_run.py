import ast
import json
import os
import sys
import time
from pathlib import Path

import pytest

from bezoar.bench.records import RecipeRun, read
from recipes import run as runner

GOOD = {"name": "auroc", "value": 0.97, "gate": 0.95, "passed": True}
RECIPES = sorted(
    path for kind in ("mini", "paper") for path in (runner.HERE / kind).glob("*.py")
)


def recipe(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(body)
    return path


def printing(name: str, *claims: object, code: int = 0) -> str:
    printed = json.dumps({"recipe": name, "seconds": 0.1, "claims": claims})
    return f"import sys\nprint({printed!r})\nsys.exit({code})\n"


def test_a_recipe_that_holds_passes(tmp_path: Path) -> None:
    found = runner.run(recipe(tmp_path, "a", printing("a", GOOD)), limit=20)
    assert (found.status, found.reason) == ("passed", "")
    assert found.claims[0].value == 0.97


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (printing("a", GOOD | {"passed": False}, code=1), "got misses: auroc"),
        (printing("a", GOOD | {"passed": False}), "got misses: auroc"),
        (printing("a", GOOD, code=1), "expected exit code 0, got 1"),
        (printing("a"), "at least one claim"),
        (printing("b", GOOD), "expected recipe 'a'"),
        ("print('hello')", "expected one JSON object"),
        ("raise OSError('no disk')", "no disk"),
        (printing("a", {"name": "auroc"}), "expected one JSON object"),
    ],
)
def test_every_other_end_fails_with_its_reason(
    tmp_path: Path, body: str, reason: str
) -> None:
    found = runner.run(recipe(tmp_path, "a", body), limit=20)
    assert found.status == "failed"
    assert reason in found.reason


def test_a_recipe_that_hangs_is_ended_with_its_workers(tmp_path: Path) -> None:
    mark = tmp_path / "worker"
    body = (
        "import subprocess\n"
        f"sleep = [{sys.executable!r}, '-c', 'import time; time.sleep(15)']\n"
        "quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
        "worker = subprocess.Popen(sleep, **quiet)\n"
        f"open({str(mark)!r}, 'w').write(str(worker.pid))\nworker.wait()\n"
    )
    found = runner.run(recipe(tmp_path, "a", body), limit=1.5)
    assert found.reason == "expected an end within 1.5 s, got none"
    pid = int(mark.read_text())
    for _ in range(100):  # its new parent needs a moment to collect it
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its recipe")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not (stat.exists() and stat.read_text().rpartition(")")[2][1] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_lacking_data_skips_on_a_desk_and_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(tmp_path, "a", "import sys\nprint('no CIFAR-10', file=sys.stderr)\nexit(3)")
    monkeypatch.delenv("CI", raising=False)
    assert runner.main(["--folder", str(tmp_path)]) == 0
    assert "a: skipped" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    assert runner.main(["--folder", str(tmp_path)]) == 1
    assert "no CIFAR-10" in capsys.readouterr().out


def test_all_are_run_after_a_failure_and_only_what_passed_is_recorded(
    tmp_path: Path,
) -> None:
    recipe(tmp_path, "a", printing("a", GOOD | {"passed": False}, code=1))
    recipe(tmp_path, "b", printing("b", GOOD))
    out, records = tmp_path / "build" / "recipes.json", tmp_path / "r.jsonl"
    given = ["--folder", str(tmp_path), "--out", str(out), "--record", str(records)]
    assert runner.main(given) == 1
    found = json.loads(out.read_text())["recipes"]
    assert [r["status"] for r in found] == ["failed", "passed"]
    (kept,) = read(records)
    assert isinstance(kept, RecipeRun)
    assert (kept.recipe, kept.claims[0].gate) == ("b", 0.95)


def test_long_recipes_are_left_out_without_being_run(tmp_path: Path) -> None:
    recipe(tmp_path, "a", printing("a", GOOD))
    recipe(tmp_path, "b", "LONG = True\nraise SystemExit(9)\n")
    assert runner.main(["--folder", str(tmp_path), "--short"]) == 0
    assert runner.main(["--folder", str(tmp_path)]) == 1
    assert runner.main(["--folder", str(tmp_path), "a"]) == 0


def test_a_name_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"got \['nothing'\]"):
        runner.main(["--folder", str(tmp_path), "nothing"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_claims(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_a_long_recipe_may_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def note(path: Path, *, limit: float) -> runner.Outcome:
        limits.append((path.stem, limit))
        return runner.Outcome(recipe=path.stem, status="passed", seconds=0.0)

    (tmp_path / "brief.py").write_text("")
    (tmp_path / "long.py").write_text("LONG = True\n")
    monkeypatch.setattr(runner, "run", note)
    assert runner.main(["--folder", str(tmp_path), "--limit", "10"]) == 0
    assert limits == [("brief", 10.0), ("long", 40.0)]
