"""Trainings in two processes give the weights of a training in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bezoar.cli.main import main
from bezoar.data import noise_images, write_images
from bezoar.errors import InputError
from bezoar.runtime import Runtime
from bezoar.train import (
    Adversary,
    Ranks,
    forget_training,
    train_classifier,
    train_denoiser,
)
from bezoar.train.loop import _check_shared

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


def run(*words: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    script = HERE / "shared_trainings.py"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    run(script, tmp_path / "one", tmp_path / "a")
    run(*torchrun, script, tmp_path / "two", tmp_path / "b")
    one = load_file(tmp_path / "one" / "0.safetensors")
    first, second = (load_file(tmp_path / "two" / f"{i}.safetensors") for i in (0, 1))
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name  # all processes agree to the bit
        kind, _, rest = name.partition(".")
        difference = (tensor.double() - one[name].double()).abs()
        # Adam's first steps have one length whatever the slope, and the sign of a slope
        # near 0 is that of its rounding.
        if kind in {"autoencoder", "pairs"}:  # biases before a norm do nothing
            continue
        if kind == "output":
            bound = 1e-3 if name == "output.cosines" else 1e-5
            assert difference.max() < bound, name
        elif kind == "encoder" and "running" not in name:
            assert difference.mean() < 1e-5, name
        else:  # sums over a batch are taken in another order
            assert difference.max() < 1e-5, name
        if kind == "classifier":
            assert tensor.equal(first[f"resumed.{rest}"]), name
    for folder in (tmp_path / "a", tmp_path / "b"):
        forget_training(folder)  # checkpoints stay until the caller has the network
    assert not list(tmp_path.glob("[ab]/*.safetensors"))


@pytest.mark.slow
def test_the_command_line_shares_a_training(tmp_path: Path) -> None:
    data = noise_images(24)
    write_images(data, tmp_path / "photos", format="class_folders")
    call = ("-m", "bezoar", "train", tmp_path / "photos", "--epochs", 2)
    words = (*call, "--width", 4, "--dtype", "float32", "--device", "cpu")
    main([*map(str, words[2:]), "--out", str(tmp_path / "one.safetensors")])
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    run(*torchrun, *words, "--out", tmp_path / "two.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("photos", "one.json", "one.safetensors", "two.json", "two.safetensors")
    }
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=0, atol=1e-5)


def test_shares_are_all_of_a_batch() -> None:
    batch = torch.arange(7)
    shares = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert torch.cat(shares).equal(batch)
    assert [len(share) for share in shares] == [3, 2, 2]


def test_one_process_does_nothing_else() -> None:
    ranks, net = Ranks(), nn.BatchNorm1d(2)
    value = torch.ones(3)
    assert ranks.whole(value, 3) is value
    assert ranks.total(value) is value
    with ranks.synced(net):
        assert "forward" not in vars(net)
    with Ranks(0, 2).synced(net):
        assert "forward" in vars(net)
    assert "forward" not in vars(net)


def test_what_cannot_be_shared_is_refused() -> None:
    runtime = Runtime(distributed=True)
    with pytest.raises(InputError, match="start with torchrun"):
        train_classifier(nn.Flatten(), data=noise_images(4), runtime=runtime)
    with pytest.raises(InputError, match="at least 4 images for 2 processes, got 3"):
        Ranks(0, 2).check("", batch_size=3)
    with pytest.raises(InputError, match="one process for a training that changes"):
        _check_shared(Ranks(0, 2), Adversary())
    with pytest.raises(InputError, match="a denoiser in one process"):
        train_denoiser(noise_images(4).images, runtime=runtime)
