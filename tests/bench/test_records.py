import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bezoar.bench import machine as surroundings
from bezoar.bench.records import (
    Claim,
    RecipeRun,
    Record,
    append,
    commit,
    compare,
    machine,
    read,
    versions,
)
from bezoar.errors import InputError, StorageError


def measured(
    before: Sequence[float], after: Sequence[float], *, higher_is_better: bool = True
) -> Record:
    return compare(
        "scoring",
        before=before,
        after=after,
        unit="images/s",
        higher_is_better=higher_is_better,
        warmup=1,
        equality="bitwise",
    )


def test_rates_and_costs_gain_in_opposite_directions() -> None:
    rate = measured([2.0] * 5, [8.0] * 5)
    cost = measured([8.0] * 5, [2.0] * 5, higher_is_better=False)
    assert rate.ratio == rate.mean == cost.ratio == cost.mean == 4
    assert rate.spread == cost.spread == 0


def test_ratios_are_taken_run_by_run() -> None:
    # A machine at half speed from the third run on changes no ratio.
    found = measured([4.0, 4.0, 2.0, 2.0, 2.0], [8.0, 8.0, 4.0, 4.0, 4.0])
    assert found.spread == 0
    assert (found.mean, found.n) == (2, 5)


def test_spread_is_the_sample_deviation() -> None:
    found = measured([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.spread == pytest.approx((10 / 4) ** 0.5)  # n - 1, not n


@pytest.mark.parametrize("runs", [([1.0] * 4, [1.0] * 4), ([1.0] * 5, [1.0] * 6)])
def test_too_few_or_unequal_runs_are_refused(
    runs: tuple[list[float], list[float]],
) -> None:
    with pytest.raises(InputError, match=r"at least 5 runs .* measure in turns"):
        measured(*runs)


@pytest.mark.parametrize("figure", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_that_measure_nothing_are_refused(figure: float) -> None:
    with pytest.raises(InputError, match="expected finite figures above 0"):
        measured([1.0] * 5, [1.0] * 4 + [figure])


def test_what_is_added_is_read_and_nothing_before_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.jsonl"
    first = measured([1.0] * 5, [2.0] * 5)
    run = RecipeRun(
        recipe="détection",
        seconds=2.5,
        claims=(Claim(name="auroc", value=0.97, gate=0.95, passed=True),),
    )
    append(first, path)
    before = path.read_bytes()
    append(run, path)
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 2
    assert read(path) == (first, run)


def test_a_figure_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    with pytest.raises(InputError, match="finite"):
        append(replace(measured([1.0] * 5, [2.0] * 5), mean=float("nan")), path)
    assert not path.exists()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    append(measured([1.0] * 5, [2.0] * 5), path)
    with path.open("a") as file:
        file.write(json.dumps({"what": "half a record"}) + "\n")
    with pytest.raises(StorageError, match="a record in line 2"):
        read(path)


def test_missing_and_unwritable_files_are_storage_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="measure first"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(StorageError, match="choose another place"):
        append(measured([1.0] * 5, [2.0] * 5), tmp_path)


def test_the_machine_is_described_without_its_name() -> None:
    found = machine()
    assert found.cores >= 1
    assert found.memory_gib >= 1
    assert found.cpu
    assert socket.gethostname() not in str(found)


def test_processors_are_read_from_the_first_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "model name\t: Fast One\nflags\t: fpu avx512_bf16 avx2\n\n"
        "model name\t: Other\nflags\t: fpu\n"
    )
    monkeypatch.setattr(surroundings, "Path", lambda _: listing)
    found = machine()
    assert found.cpu == "Fast One"
    assert found.features == ("avx2", "avx512_bf16")


def test_versions_name_what_figures_depend_on() -> None:
    assert {"python", "torch", "numpy"} <= versions().keys()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_says_whether_code_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@example.org")
    code, records = tmp_path / "code.py", tmp_path / "docs" / "records" / "b.jsonl"
    monkeypatch.setattr(surroundings, "__file__", str(code))
    code.write_text("1\n")
    assert commit() == "unknown"  # no repository
    surroundings._git("init", "-q")
    assert commit() == "unknown"  # a repository of something else
    records.parent.mkdir(parents=True)
    records.write_text("{}\n")
    surroundings._git("add", "-A")
    surroundings._git("commit", "-q", "-m", "code")
    clean = commit()
    assert len(clean) == 12
    records.write_text("{}\n{}\n")
    assert commit() == clean  # records are added before they are committed
    code.write_text("2\n")
    assert commit() == f"{clean}+changes"
