"""Train in as many processes as torchrun started, and save what came of it.

A script of its own: one process of a shared training has to be one of several.
"""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import distributed, nn

from bezoar.data import digit_pairs, noise_images
from bezoar.errors import InputError
from bezoar.models import TinyClip, WordTokenizer, simclr
from bezoar.runtime import Progress, Runtime
from bezoar.train import (
    ClipTraining,
    EncoderTraining,
    EnergyTraining,
    Training,
    VAETraining,
    train_classifier,
    train_clip,
    train_dvae,
    train_energy,
    train_simclr,
)

DATA = noise_images(50)
PAIRS = digit_pairs("victim", num_pairs=38)
ENERGY = EnergyTraining(
    num_filters=4, num_updates=6, batch_size=9, chain_steps=3, bank_size=18
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 6),
        nn.BatchNorm1d(6, momentum=None),
        nn.Linear(6, 2),
    )


def classifier(runtime: Runtime) -> nn.Module:
    settings = Training(epochs=3, batch_size=15, augment="crop_flip", lr=0.05)
    return train_classifier(
        network(), data=DATA, settings=settings, seed=3, runtime=runtime
    )


def encoder(runtime: Runtime) -> nn.Module:
    settings = EncoderTraining(epochs=1, batch_size=50, lr=1e-3)
    return train_simclr(
        simclr("resnet18"), data=DATA, settings=settings, runtime=runtime
    )


def autoencoder(runtime: Runtime) -> nn.Module:
    settings = VAETraining(
        epochs=2,
        batch_size=15,
        width=4,
        latent_width=8,
        input_noise=0.05,
        perturbation_start_rate=0.5,
        lr=1e-3,
    )
    return train_dvae(DATA, settings=settings, seed=5, runtime=runtime).network


def pair_model(runtime: Runtime) -> nn.Module:
    words = WordTokenizer.from_captions(PAIRS.captions)
    settings = ClipTraining(epochs=2, batch_size=25, augment="crop_flip")
    return train_clip(
        TinyClip(words, resolution=24, seed=1),
        data=PAIRS,
        settings=settings,
        seed=2,
        runtime=runtime,
    )


@torch.no_grad()
def what_they_do(
    autoencoder: nn.Module, pair_model: nn.Module
) -> dict[str, torch.Tensor]:
    shown, perturbation, _, _ = autoencoder(DATA.images.float() / 255, DATA.labels)
    assert isinstance(pair_model, TinyClip)
    seen = pair_model.encode_images(PAIRS.images.float() / 255)
    told = pair_model.encode_texts(pair_model.tokenize(PAIRS.captions))
    return {
        "output.image": shown.contiguous(),
        "output.perturbation": perturbation.contiguous(),
        "output.cosines": seen @ told.T,
    }


class Stop(Exception):
    pass


def stop(progress: Progress) -> None:
    if progress.done == 2:
        raise Stop


def main() -> None:
    torch.set_num_threads(1)
    out, work_dir = Path(sys.argv[1]), Path(sys.argv[2])
    is_shared = "RANK" in os.environ
    if is_shared:
        distributed.init_process_group("gloo")
    rank = distributed.get_rank() if is_shared else 0
    runtime = Runtime(dtype=torch.float32, distributed=is_shared)
    resumable = replace(runtime, work_dir=work_dir)
    with suppress(Stop):
        classifier(replace(resumable, progress=stop))
    found = {
        "resumed": classifier(resumable),
        "classifier": classifier(runtime),
        "encoder": encoder(runtime),
        "autoencoder": autoencoder(runtime),
        "pairs": pair_model(runtime),
        "energy": train_energy(DATA.images, settings=ENERGY, runtime=runtime),
    }
    tensors = {
        f"{name}.{key}": value.contiguous()
        for name, net in found.items()
        for key, value in net.state_dict().items()
    }
    tensors |= what_they_do(found["autoencoder"], found["pairs"])
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / f"{rank}.safetensors")
    if is_shared:
        _check_that_others_are_refused(rank)
        distributed.destroy_process_group()


def _check_that_others_are_refused(rank: int) -> None:
    settings = Training(epochs=1, lr=0.1 + rank)
    with pytest.raises(InputError, match="in all processes, got others"):
        train_classifier(
            network(), data=DATA, settings=settings, runtime=Runtime(distributed=True)
        )


if __name__ == "__main__":
    main()
