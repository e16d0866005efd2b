"""Files are whole or not there, and killed runs leave nothing for good."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bezoar.data import noise_images, write_images
from bezoar.errors import StorageError
from bezoar.files import atomic, partial_name, workplace

SRC = Path(__file__).parents[1] / "src"
BEGINS = """
import sys, time
from pathlib import Path
from bezoar.files import workplace
with workplace(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(bytes(100))
    print("begun", flush=True)
    time.sleep(60)
"""


def begun(place: Path) -> "subprocess.Popen[str]":
    run = subprocess.Popen(
        [sys.executable, "-c", BEGINS, str(place)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "begun\n"
    return run


def ended(run: "subprocess.Popen[str]") -> None:
    run.send_signal(signal.SIGKILL)
    run.communicate()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in ("a.json", "set"):
        ended(begun(tmp_path / name))
        assert (tmp_path / partial_name(name) / "half").exists()
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    write_images(noise_images(2), tmp_path / "set", format="class_folders")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "set"]
    assert (tmp_path / "a.json").read_text() == "whole"


def test_what_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    other = begun(tmp_path / "a.json")
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("ours")
    assert (tmp_path / partial_name("a.json") / "half").exists()
    assert (tmp_path / "a.json").read_text() == "ours"
    ended(other)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_lies_in_the_way_is_not_followed(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo").touch()
    way = tmp_path / partial_name("a.json")
    if kind == "link":
        way.symlink_to(precious)
    else:
        way.touch()
    with atomic(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    assert (precious / "photo").exists()
    assert not way.exists()


def test_after_an_error_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fails() -> None:
        with atomic(path) as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_a_disk_that_is_full_for_a_writer_of_its_own_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with (
            pytest.raises(StorageError, match=r"'a.safetensors'.*got File too large; "),
            atomic(tmp_path / "a.safetensors") as temporary,
        ):
            save_file({"a": torch.zeros(4096)}, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_workplace_is_empty_and_private(tmp_path: Path) -> None:
    with workplace(tmp_path / "a") as folder:
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())
