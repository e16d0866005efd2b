"""What ``DVAE.quick`` does, without any training, to nine ways to poison and to none.

2,000 training images of CIFAR-10, 200 a class or so, and a small convnet, three times
with other noise and other networks. Noise that is the same in a class, or nearly (LSP,
OPS, class-wise noise, TUE, PIL), is to come off; patches of 16 pixels, what is new in
each image (AR), a filter (CUDA) and what only half of the images carry is reported.
Where there is nothing by class (clean images, random noise, patterns given out at
random) every image is to come back as it was.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from bezoar.attacks import AR, LSP, OPS, PIL, TUE, ClassNoise, CUDAFilter
from bezoar.attacks.unlearnable import Unlearnable
from bezoar.bench.recipe import Claims, cifar10, main, off_grid
from bezoar.bench.unlearnable import UnlearnableBench
from bezoar.data import ImageData
from bezoar.purify import DVAE, ShortcutSqueezing
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import Training

LONG = True  # 84 trainings of a small network
NUM_IMAGES, NUM_TEST = 2000, 2000
SEEDS = 3
PROTOCOL = Training(epochs=20)
METHOD = DVAE.quick()
# What comes off, and the share of the accuracy that has to come back.
BY_CLASS: dict[str, tuple[Unlearnable, float]] = {
    "lsp": (LSP(), 0.6),
    "ops": (OPS(), 0.6),
    "class noise": (ClassNoise(), 0.6),
    "tue": (TUE(), 0.6),
    "pil": (PIL(), 0.6),
}
OTHERS: dict[str, Unlearnable] = {
    "lsp, patches of 16, twice as strong": LSP(patch_size=16, eps=12 / 255),
    "lsp in half of the images": LSP(poison_rate=0.5),
    "ar": AR(),
    "cuda": CUDAFilter(),
}


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Take patterns off without training."""
    benches = [
        UnlearnableBench(
            train=off_grid(cifar10("train", limit=NUM_IMAGES)),
            test=off_grid(cifar10("test", limit=NUM_TEST)),
            seed=claims.seed + i,
            runtime=Runtime(progress=report),
            protocol=PROTOCOL,
        )
        for i in range(SEEDS)
    ]
    clean = [bench.accuracy(bench.train) for bench in benches]
    claims.reported("accuracy, clean", statistics.mean(clean))
    for name, (attack, gate) in BY_CLASS.items():
        means = _rows(claims, benches, name, attack)
        claims.at_most(f"{name}: accuracy, poisoned", means["given"], 0.30)
        room = statistics.mean(clean) - means["given"]
        for kind in ("quick", "jpeg"):
            gained = means[kind] - means["given"]
            shared = gained / room if room > 0 else 0.0
            title = f"{name}: share of accuracy recovered, {kind}"
            if kind == "quick":
                claims.at_least(title, shared, gate)
            else:
                claims.reported(title, shared)
    for name, other in OTHERS.items():
        means = _rows(claims, benches, name, other)
        shown = ", ".join(f"{kind} {value:.3f}" for kind, value in means.items())
        claims.reported(f"{name}: accuracy", shown)
    for name, make in NOTHING.items():
        changed = [_changed(make(bench.train, bench.seed)) for bench in benches]
        claims.at_most(f"{name}: images changed", max(changed), 0)


def _rows(
    claims: Claims, benches: list[UnlearnableBench], name: str, attack: Unlearnable
) -> dict[str, float]:
    found: dict[str, list[float]] = {"given": [], "quick": [], "jpeg": []}
    for bench in benches:
        poisoned = attack.poison(bench.train, seed=bench.seed).data
        sets = {
            "given": poisoned,
            "quick": METHOD.purify(poisoned, seed=bench.seed).data,
            "jpeg": ShortcutSqueezing(squeeze="jpeg").purify(poisoned).data,
        }
        for kind, data in sets.items():
            found[kind].append(bench.accuracy(data))
    claims.facts[name] = {k: [round(v, 4) for v in row] for k, row in found.items()}
    return {kind: statistics.mean(row) for kind, row in found.items()}


def _changed(data: ImageData) -> int:
    images = METHOD.purify(data).data.images
    return int((images != data.images).flatten(1).any(1).sum())


def _as_it_is(data: ImageData, _: int) -> ImageData:
    return data


def _noisy(data: ImageData, seed: int) -> ImageData:
    stream = generator(seed, "recipe.noise")
    noise = torch.randint(-8, 9, data.images.shape, generator=stream)
    return replace(data, images=(data.images + noise).clamp(0, 255).to(torch.uint8))


def _shuffled(data: ImageData, seed: int) -> ImageData:
    order = torch.randperm(len(data), generator=generator(seed, "recipe.labels"))
    other = replace(data, labels=data.labels[order])
    return replace(LSP().poison(other, seed=seed).data, labels=data.labels)


NOTHING: dict[str, Callable[[ImageData, int], ImageData]] = {
    "clean": _as_it_is,
    "random noise": _noisy,
    "lsp by labels that are shuffled": _shuffled,
}


if __name__ == "__main__":
    sys.exit(main("class_patterns", body))
