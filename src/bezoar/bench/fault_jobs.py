"""What is killed: small runs of everything that says that it goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from bezoar.attacks import BadEncoder
from bezoar.bench.faults import Job
from bezoar.data import (
    ImageData,
    noise_images,
    open_source,
    shape_pairs,
    write_images,
    write_source,
)
from bezoar.detect import CognitiveDistillation
from bezoar.engine import detect_source, purify_source
from bezoar.files import PARTIAL
from bezoar.models import (
    Architecture,
    TinyClip,
    WordTokenizer,
    save_denoiser,
    save_dual_encoder,
    save_dvae,
    save_encoder,
    save_energy,
    save_model,
    simclr,
)
from bezoar.models.energy import EnergyNet
from bezoar.purify import PureEBM
from bezoar.repair import MIMIC
from bezoar.runtime import Runtime
from bezoar.storage import save_detection, save_purification, save_repair
from bezoar.train import (
    ClipTraining,
    DenoiserTraining,
    EncoderTraining,
    EnergyTraining,
    Training,
    VAETraining,
    energy,
    forget_training,
    train_classifier,
    train_clip,
    train_denoiser,
    train_dvae,
    train_energy,
    train_simclr,
)

ALL_DONE = 1 << 20  # more than any number of blocks, epochs or updates
_FLOAT = Runtime(dtype=torch.float32)
_SMALL, _LARGE = noise_images(96), noise_images(48, size=16)


def library_jobs(folder: Path) -> list[Job]:
    """Return a job for each kind of run that goes on.

    Args:
        folder: Where the sets that they read are written.

    Returns:
        The jobs, small enough to take about a second.
    """
    data = folder / "images.parquet"
    write_images(_SMALL, data, format="parquet")
    return [
        _detection(data),
        _purification(data),
        _training("classifier", _classifier, "model"),
        _training("energy network", _energy, "energy"),
        _training("D-VAE", _dvae, "dvae"),
        _training("SimCLR", _simclr, "encoder"),
        _training("BadEncoder", _bad_encoder, "encoder"),
        _training("denoiser", _denoiser, "denoiser"),
        _training("image-text model", _pair_model, "clip", weights="model"),
        _mimic(),
    ]


def kept(place: Path, *, done: str) -> int:
    """Return how much of a training a folder keeps.

    Args:
        place: The folder.
        done: The file that says that all is done.

    Returns:
        Epochs or updates; ``ALL_DONE`` once the result is there.
    """
    if (place / done).exists():
        return ALL_DONE
    found = 0
    for path in place.rglob("*training.safetensors"):
        if PARTIAL in path.parent.name:
            continue
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        told = about.get("epoch") or about.get("update") or len(about["history"])
        found = max(found, int(told))
    return found


def blocks(place: Path, *, done: str) -> int:
    """Return how many blocks of a run a folder keeps.

    Args:
        place: The folder.
        done: The file that says that all is done.

    Returns:
        The number; ``ALL_DONE`` once the result is there.
    """
    if (place / done).exists():
        return ALL_DONE
    return len(list(place.glob("**/blocks/[0-9]*.parquet")))


def _training(
    name: str, work: Callable[[Path], None], result: str, *, weights: str = ""
) -> Job:
    results = (f"{weights or result}.safetensors", f"{result}.json")
    done = results[1]
    return Job(
        name=name,
        work=work,
        results=results,
        progress=lambda place: kept(place, done=done),
    )


def _detection(data: Path) -> Job:
    method = CognitiveDistillation(steps=6, l1_weight=0.01, threshold="review")
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

    def work(place: Path) -> None:
        runtime = replace(_FLOAT, block_size=4, batch_size=4, work_dir=place)
        found, unreadable = detect_source(
            open_source(data),
            method=method,
            model=model,
            image_size=(8, 8),
            runtime=runtime,
        )
        save_detection(found, place, unreadable=unreadable)

    return Job(
        name="detect",
        work=work,
        results=("scores.parquet", "*.csv", "blocks/*.parquet", "masks.safetensors"),
        progress=lambda place: blocks(place, done="report.json"),
    )


def _purification(data: Path) -> Job:
    energy = EnergyNet(num_filters=4, in_channels=3, image_size=(8, 8), seed=0)

    def work(place: Path) -> None:
        source = open_source(data)
        done = purify_source(
            source,
            method=PureEBM(steps=4),
            image_size=(8, 8),
            networks={"energy": energy},
            runtime=replace(_FLOAT, block_size=4, work_dir=place / "work"),
        )
        save_purification(done.report, place)
        if not (place / "clean").exists():
            write_source(source, place / "clean", images=done.images)

    return Job(
        name="purify",
        work=work,
        results=("clean/**/*", "changes.parquet", "work/blocks/*.parquet"),
        progress=lambda place: blocks(place, done="clean"),
    )


def _mimic() -> Job:
    method = replace(
        MIMIC.tiny(), epochs=6, batch_size=32, information_epochs=6, lr=3e-3
    )
    teacher = simclr("tiny", seed=5)

    def work(place: Path) -> None:
        runtime = replace(_FLOAT, work_dir=place / "work")
        found = method.repair(teacher, data=_LARGE, runtime=runtime)
        save_repair(found, place)

    return Job(
        name="MIMIC",
        work=work,
        results=("encoder.safetensors", "encoder.json", "images.parquet"),
        progress=lambda place: kept(place, done="report.json"),
    )


def _classifier(place: Path) -> None:
    architecture = Architecture(name="convnet", num_classes=2, width=4)
    work, path = place / "work", place / "model.safetensors"
    net = train_classifier(
        architecture.build(),
        data=_SMALL,
        settings=Training(epochs=8, augment="crop_flip", batch_size=8),
        runtime=replace(_FLOAT, work_dir=work),
    )
    save_model(net, path, architecture=architecture)
    forget_training(work)


def _energy(place: Path) -> None:
    settings = EnergyTraining(
        num_filters=4,
        num_updates=200,
        batch_size=4,
        chain_steps=1,
        bank_size=16,
        lr=1e-4,
    )
    work = place / "work"
    energy._KEPT = 1  # a checkpoint each 50 updates, and not each 500
    net = train_energy(
        _SMALL.images, settings=settings, runtime=replace(_FLOAT, work_dir=work)
    )
    net.card = {k: v for k, v in net.card.items() if k != "minutes"}  # of the clock
    save_energy(net, place / "energy.safetensors")
    forget_training(work)


def _dvae(place: Path) -> None:
    settings = VAETraining(width=4, latent_width=8, epochs=5, batch_size=8)
    work = place / "work"
    runtime = replace(_FLOAT, work_dir=work)
    first = train_dvae(_few(), settings=settings, stage="rough", runtime=runtime)
    last = train_dvae(
        _few(), settings=settings, start=first.network, stage="fine", runtime=runtime
    )
    save_dvae(last.network, place / "dvae.safetensors")
    forget_training(work)


def _denoiser(place: Path) -> None:
    settings = DenoiserTraining(
        channels=(4, 4), num_blocks=1, epochs=5, batch_size=8, num_levels=20
    )
    work = place / "work"
    net = train_denoiser(
        _SMALL.images, settings=settings, runtime=replace(_FLOAT, work_dir=work)
    )
    save_denoiser(net, place / "denoiser.safetensors")
    forget_training(work)


def _pair_model(place: Path) -> None:
    data = shape_pairs(32)
    words = WordTokenizer.from_captions(data.captions)
    work = place / "work"
    net = train_clip(
        TinyClip(words, resolution=24, seed=1),
        data=data,
        settings=ClipTraining(epochs=4, batch_size=16),
        runtime=replace(_FLOAT, work_dir=work),
    )
    save_dual_encoder(net, place)
    forget_training(work)


def _few() -> ImageData:
    return _SMALL.take(torch.arange(24))


def _simclr(place: Path) -> None:
    work = place / "work"
    net = train_simclr(
        simclr("tiny", seed=1),
        data=_LARGE,
        settings=EncoderTraining(epochs=4, batch_size=16),
        runtime=replace(_FLOAT, work_dir=work),
    )
    save_encoder(net, place)
    forget_training(work)


def _bad_encoder(place: Path) -> None:
    attack = replace(BadEncoder.tiny(), epochs=3, batch_size=8, num_reference_views=2)
    work = place / "work"
    net = attack.attack(
        simclr("tiny", seed=1),
        data=_LARGE.take(torch.arange(16)),
        references=_LARGE.images[16:18],
        runtime=replace(_FLOAT, work_dir=work),
    )
    save_encoder(net, place)
    forget_training(work)
