"""Pre-training of encoders: it learns, repeats and goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar.data import UNLABELLED, ImageData, noise_images
from bezoar.errors import DivergedError, InputError
from bezoar.models import simclr
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import EncoderTraining, Views, train_simclr

FLOAT = Runtime(dtype=torch.float32)
DATA = noise_images(40, size=16)


def colours() -> ImageData:
    drawn = torch.randint(0, 256, (64, 3, 1, 1), generator=generator(0, "colours"))
    return ImageData(
        images=drawn.expand(-1, -1, 16, 16).to(torch.uint8).contiguous(),
        labels=(drawn[:, 0, 0, 0] > 127).long(),
        ids=tuple(map(str, range(64))),
        class_names=("dark", "red"),
    )


QUICK = EncoderTraining(epochs=2, batch_size=16)


@pytest.mark.parametrize("objective", ["nt_xent", "sup_con"])
def test_the_loss_falls(objective: str) -> None:
    seen: list[Progress] = []
    runtime = replace(FLOAT, progress=seen.append)
    plain = Views(jitter_rate=0, grey_rate=0)
    settings = replace(QUICK, objective=objective, epochs=8, views=plain)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    net = train_simclr(
        simclr("tiny"), data=colours(), settings=settings, runtime=runtime
    )
    assert torch.get_rng_state().equal(before)
    losses = [p.metrics["loss"] for p in seen]
    assert min(losses[-2:]) < losses[0] - 0.1
    assert (seen[-1].done, seen[-1].total) == (8, 8)
    assert not net.training


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(_: Progress) -> None:
        raise Killed

    start = simclr("tiny")
    straight = train_simclr(start, data=DATA, settings=QUICK, runtime=FLOAT)
    killed = replace(FLOAT, work_dir=tmp_path, progress=kill)
    with pytest.raises(Killed):
        train_simclr(start, data=DATA, settings=QUICK, runtime=killed)
    resumed = train_simclr(
        start, data=DATA, settings=QUICK, runtime=replace(FLOAT, work_dir=tmp_path)
    )
    state = resumed.state_dict()
    assert all(v.equal(state[k]) for k, v in straight.state_dict().items())
    other = train_simclr(start, data=DATA, settings=QUICK, seed=1, runtime=FLOAT)
    assert not other.state_dict()["backbone.model.conv1.weight"].equal(
        state["backbone.model.conv1.weight"]
    )


def test_what_cannot_be_trained_is_told() -> None:
    unlabelled = replace(DATA, labels=torch.full((40,), UNLABELLED), class_names=())
    with pytest.raises(InputError, match="labelled"):
        train_simclr(simclr("tiny"), data=unlabelled, settings=EncoderTraining.tiny())
    assert train_simclr(
        simclr("tiny"), data=unlabelled, settings=replace(QUICK, epochs=1)
    )
    with pytest.raises(DivergedError, match="lower lr"):
        train_simclr(
            simclr("tiny"), data=DATA, settings=replace(QUICK, epochs=3, lr=1e30)
        )
    with pytest.raises(InputError, match="batch_size"):
        EncoderTraining(batch_size=1)
    with pytest.raises(InputError, match="temperature"):
        EncoderTraining(temperature=0.0)
