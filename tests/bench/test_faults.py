"""A few of the faults of recipes/mini/faults.py, and the tools that count them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bezoar.bench.fault_jobs import ALL_DONE, blocks, kept, library_jobs
from bezoar.bench.fault_places import little_room
from bezoar.bench.faults import Job, Tally, _killed, files, is_whole, leftovers
from bezoar.bench.recipe import Claims
from bezoar.files import atomic
from bezoar.storage import write_json
from recipes.mini import faults as recipe

ROOT = Path(__file__).parents[2]
FEW = """
import json, random, sys
from pathlib import Path
from bezoar.bench.fault_jobs import library_jobs
from bezoar.bench.faults import Tally, kill_again_and_again, timed, warmed_up
from bezoar.bench import fault_places as places

folder = Path(sys.argv[1])
warmed_up()
tally, jobs = Tally(), {job.name: job for job in library_jobs(folder)}
for name in ("detect", "purify", "classifier"):
    place = folder / f"{name}-runs"
    tally.add(kill_again_and_again(jobs[name], place, kills=2, seed=0))
    for fault in (places.full_disk, places.damaged, places.second_run):
        chance = random.Random(f"{name} {fault.__name__}")
        found = fault(jobs[name], place / "fault", place / "whole", chance=chance)
        tally.add(found)
json.dump(vars(tally), sys.stdout)
"""


@pytest.mark.slow
def test_nothing_is_lost_to_kills_full_disks_damage_and_second_runs(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert (found["lost"], found["half_written"], found["leftovers"]) == (0, 0, 0)
    assert (found["survived"], len(found["moments"])) == (6 + 9, 6)


@pytest.mark.slow
def test_every_job_comes_to_its_end_and_says_how_far_it_is(tmp_path: Path) -> None:
    for job in library_jobs(tmp_path):
        place = tmp_path / f"{job.name}-run"
        assert job.progress(place) == 0
        job.work(place)
        assert job.progress(place) == ALL_DONE
        assert len(files(place, job.results)) >= 2
        assert leftovers(place) == []
        assert all(is_whole(path) for path in place.rglob("*"))


def test_a_moment_that_comes_too_late_in_a_new_folder_is_moved(tmp_path: Path) -> None:
    job = Job(
        name="quick",
        work=lambda place: place.mkdir(exist_ok=True),
        results=(),
        progress=lambda _: 0,
    )
    moments, tally = [0.8], Tally()
    for expected in (0.72, 0.72):  # what went on takes less time: that is as it is
        assert not _killed(job, tmp_path / "new", moments, 1.0, tally)
        assert moments == [pytest.approx(expected)]
    assert tally.moments == []


def test_half_a_file_is_noticed(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"status": "done"})
    assert is_whole(tmp_path / "run.json")
    assert is_whole(tmp_path)
    for name in ("a.json", "a.parquet", "a.safetensors", "a.png", "a.html"):
        (tmp_path / name).write_bytes(b'{"half"')
        assert not is_whole(tmp_path / name)


def test_what_was_begun_is_a_leftover_and_no_result(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        assert leftovers(tmp_path) == [".a.json.partial"]
        assert files(tmp_path, ("**/*.json",)) == {}
        assert kept(tmp_path, done="b.json") == blocks(tmp_path, done="b.json") == 0
    assert leftovers(tmp_path) == []
    assert files(tmp_path, ("*.json",)) == {"a.json": b"{}"}


def test_a_little_room_is_soon_full(tmp_path: Path) -> None:
    with little_room(tmp_path / "disk", kib=64) as how:
        assert how in ("tmpfs", "RLIMIT_FSIZE")
        with pytest.raises(OSError, match=r"No space left|File too large"):
            (tmp_path / "disk" / "file").write_bytes(bytes(1 << 20))
    (tmp_path / "file").write_bytes(bytes(1 << 20))


def test_the_recipe_claims_what_was_counted() -> None:
    claims = Claims()
    claims.facts["full_disk"] = 2
    kills = Tally(survived=1, moments=[0.05, 0.95], failures=["detect: no"])
    recipe.state(claims, kills, Tally(survived=2, lost=1))
    passed = {claim.name: claim.passed for claim in claims.rows}
    assert passed["other_faults_survived"]
    assert not passed["kills_survived"]
    assert not passed["lost"]
    assert claims.facts["failures"] == ["detect: no"]
    assert sum(recipe.shared(100, 12)) == 100
