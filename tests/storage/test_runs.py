import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bezoar.errors import StorageError
from bezoar.storage import RunLock, read_object, write_run

SRC = Path(__file__).parents[2] / "src"


def test_a_run_is_written_down(tmp_path: Path) -> None:
    write_run(
        tmp_path / "run",
        command="bezoar detect photos/",
        settings={"steps": 50, "out": Path("x")},
        seed=1,
        versions={"torch": "2.13"},
        fingerprints={"model": "ab"},
        timings={"score": 1.5},
        status="done",
    )
    assert read_object(tmp_path / "run" / "run.json") == {
        "format": 1,
        "status": "done",
        "command": "bezoar detect photos/",
        "settings": {"steps": 50, "out": "x"},
        "seed": 1,
        "versions": {"torch": "2.13"},
        "fingerprints": {"model": "ab"},
        "timings": {"score": 1.5},
    }


def test_two_runs_on_one_folder_are_refused_until_the_first_ends(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "new" / "run"
    with RunLock(folder):
        said = rf"expected no other run on .*process {os.getpid()}; wait for it"
        with pytest.raises(StorageError, match=said), RunLock(folder):
            pass
        with RunLock(folder, name=".other"), RunLock(tmp_path):
            pass
    with RunLock(folder):
        pass


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with (
            pytest.raises(StorageError, match="got File too large; "),
            RunLock(tmp_path),
        ):
            pytest.fail("the lock was taken")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from bezoar.storage import RunLock\n"
        "with RunLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(StorageError, match=f"process {process.pid}"),
            RunLock(tmp_path),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with RunLock(tmp_path):
        pass


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="choose another --out"),
        RunLock(tmp_path / "file" / "run"),
    ):
        pass
