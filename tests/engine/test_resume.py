"""Runs of their own process: killed ones, and one of many images."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env={"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_that_was_killed_many_times_gives_the_same_files(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = json.loads(run("killed_run.py", whole, killed, 0))
    assert finished == sorted(finished)
    assert len({n for n in finished if 0 < n < 60}) >= 3  # killed in the middle
    for name in ("scores.parquet", "unreadable.csv", "removed.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    first, second = (
        {p.name: p.read_bytes() for p in (out / "work" / "blocks").glob("*.parquet")}
        for out in (whole, killed)
    )
    assert len(first) == 60
    assert first == second


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_over_two_hundred_thousand_images(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)
    pictures = np.repeat(pictures[:, ::4, ::4], 4, axis=1).repeat(4, axis=2)
    files = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png", compress_level=1)
        files.append(file.getvalue())
    turns = np.arange(200_000) % len(files)
    column = pa.array(files).take(pa.array(turns))
    table = pa.table({"image": column, "label": turns % 10})
    # One row group without a dictionary: the whole file as one piece, as pandas does.
    pq.write_table(
        table, tmp_path / "a.parquet", row_group_size=len(turns), use_dictionary=False
    )
    found = json.loads(run("large_run.py", tmp_path / "a.parquet", tmp_path / "work"))
    sys.stderr.write(f"{found}\n")
    assert (found["images"], found["unreadable"]) == (200_000, 0)
    expected = pictures.mean(axis=(1, 2, 3))[turns].sum() / 255
    assert found["sum"] == pytest.approx(expected, rel=1e-6)
    assert len(list((tmp_path / "work" / "blocks").glob("*.parquet"))) == 196
    assert found["peak_mib"] < 1536
    assert found["cpu_seconds"] < 60
