"""Training of denoisers: it learns, it repeats, and its steps rise and fall."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar import DenoiserTraining, Runtime, train_denoiser
from bezoar.data import noise_images
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.runtime import Progress
from bezoar.train import forget_training

IMAGES = torch.full((32, 3, 8, 8), 200, dtype=torch.uint8)
SMALL = DenoiserTraining(
    channels=(8, 8), num_blocks=1, epochs=30, batch_size=16, lr=1e-2, warm_up=5
)


def test_it_learns_what_one_grey_image_looks_like() -> None:
    runtime = Runtime(dtype=torch.float32)
    net = train_denoiser(IMAGES, settings=SMALL, runtime=runtime)
    losses = net.card["losses"]
    assert isinstance(losses, list)
    assert losses[-1] < 0.3 * losses[0]
    assert net.num_levels == 250


def test_it_repeats_from_its_seed() -> None:
    few = DenoiserTraining(channels=(4, 4), num_blocks=1, epochs=1, batch_size=4)
    images = noise_images(6).images
    prints = [
        fingerprint(train_denoiser(images, settings=few, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_killed_training_goes_on_to_the_same_network(tmp_path: Path) -> None:
    settings = replace(SMALL, epochs=3)
    straight = train_denoiser(IMAGES, settings=settings)
    seen: list[int] = []

    def kill(progress: Progress) -> None:
        seen.append(progress.done)
        if progress.done == 2:
            raise KeyboardInterrupt

    runtime = Runtime(work_dir=tmp_path, progress=kill)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(IMAGES, settings=settings, runtime=runtime)
    resumed = train_denoiser(IMAGES, settings=settings, runtime=runtime)
    assert seen == [1, 2, 3]
    assert fingerprint(resumed) == fingerprint(straight)
    assert resumed.card["losses"] == straight.card["losses"]
    forget_training(tmp_path)
    assert not list(tmp_path.glob("*training*"))


def test_steps_rise_and_fall() -> None:
    rates = [SMALL.rate(step, 60) for step in range(60)]
    assert rates[:5] == pytest.approx([2e-3, 4e-3, 6e-3, 8e-3, 1e-2])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-4


def test_settings_without_sense_and_divergence_are_told() -> None:
    with pytest.raises(InputError, match="num_levels"):
        DenoiserTraining(num_levels=0)
    with pytest.raises(InputError, match="lr above 0"):
        DenoiserTraining(lr=0.0)
    wild = DenoiserTraining(
        channels=(4, 4), num_blocks=1, epochs=9, lr=1e30, warm_up=0, batch_size=4
    )
    with pytest.raises(DivergedError, match="lower"):
        train_denoiser(noise_images(8).images, settings=wild)
