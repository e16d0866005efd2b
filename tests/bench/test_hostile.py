"""Files that somebody made to do harm: a few of each kind, and the tools for many.

``BEZOAR_EXAMPLES=1000 pytest tests/bench/test_hostile.py`` tries more.
"""

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bezoar.bench import hostile, hostile_looks
from bezoar.bench.guided import Guided
from bezoar.bench.hostile_looks import LOOKS, look_at, watched
from bezoar.bench.hostile_pages import _Tags

ROOT = Path(__file__).parents[2]
FEW = settings(
    max_examples=int(os.environ.get("BEZOAR_EXAMPLES", "12")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of libraries that read odd files
@pytest.mark.parametrize("kind", LOOKS)
def test_a_hostile_file_comes_to_a_result_or_a_sentence(kind: str) -> None:
    @FEW
    @given(st.randoms(use_true_random=False))
    def look(chance: random.Random) -> None:
        look_at(kind, chance)

    look()


@pytest.mark.slow
def test_many_are_counted_in_processes_with_bounds() -> None:
    script = """
import random, sys, time
from bezoar.bench import hostile_looks as h
print(len(h.look_at_many("decisions", first=0, count=20).faults))
def bad(chance, folder):
    kind = chance.randrange(4)
    if kind == 0: raise KeyError("no sentence")
    if kind == 1: bytearray(8 << 30)
    if kind == 2: (folder.parent / "stray").touch()
    if kind == 3: time.sleep(60)
h.LOOKS["bad"], h.SECONDS = bad, 1
found = h.look_at_many("bad", first=0, count=8)
text = " ".join(found.faults)
print(found.tried, len(found.faults))
words = ("KeyError", "MemoryError", "written outside", "ended with -14")
print(*(word in text for word in words))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["0", "8", "8", *["True"] * 4], done.stderr


def test_a_stray_file_and_a_program_that_ran_are_noticed(tmp_path: Path) -> None:
    with watched(tmp_path / "fine") as folder:
        (folder / "result").touch()
    with (
        pytest.raises(AssertionError, match="written outside"),
        watched(tmp_path / "stray") as folder,
    ):
        (folder.parent / "other").touch()
    with (
        pytest.raises(AssertionError, match="was run"),
        watched(tmp_path / "ran") as folder,
    ):
        (folder / hostile.MARK).touch()


def test_elements_and_handlers_that_are_not_ours_are_noticed() -> None:
    for page in (
        "<iframe></iframe>",
        "<p onclick=alert(1)>",
        "<img src='http://a/b'>",
        "<a href='javascript:alert(1)'>",
    ):
        with pytest.raises(AssertionError):
            _Tags().feed(page)
    _Tags().feed("<p><a href='#part'>a part</a>")


def test_a_seed_makes_the_same_file_again(tmp_path: Path) -> None:
    makers = (hostile.tar, hostile.parquet, hostile.weights)
    for make in makers:
        for name in ("one", "two"):
            make(random.Random(3), tmp_path / name)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    for draw in (hostile.image, hostile.deep_json, hostile.name):
        assert draw(random.Random(5)) == draw(random.Random(5))


def test_the_program_in_a_pickle_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # or the tests above would prove nothing
    pickle.loads(pickle.dumps(hostile.Bomb()))
    assert Path(hostile.MARK).exists()
    assert hostile_looks.SECONDS > 0


def test_bytes_steer_what_is_made() -> None:
    few, more = Guided(bytes(range(40))), Guided(bytes(range(40)))
    assert [few.random() for _ in range(5)] == [more.random() for _ in range(5)]
    assert [few.randrange(10) for _ in range(9)] == [
        more.randrange(10) for _ in range(9)
    ]
    assert few.randbytes(3) == more.randbytes(3)
    assert {Guided(bytes([first])).choice("abcd") for first in range(4)} == set("abcd")
    used_up = Guided(b"\x07")
    assert [used_up.getrandbits(3) for _ in range(3)] == [7, 0, 0]
    assert hostile.image(Guided(bytes(99))) == hostile.image(Guided(bytes(99)))
    look_at("tars", Guided(bytes(range(256))))
