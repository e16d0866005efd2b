"""PureEBM against Narcissus on CIFAR-10, trained from scratch: for one GPU.

A tenth of a class, 1 % of all images, carries a faint pattern. A ResNet-18 is trained
on them as they are, after PureEBM, after JPEG at 75, and after Gaussian noise that
moves images as far. Reads ``train`` and ``test`` as npz or parquet from ``--data``.
What is measured is printed class by class, so that a run that is cut off is not lost.

``--baselines jpeg epic friends`` trains after JPEG at 25, 50, 75 and 85, with EPIC at
three rates, and with friendly and fresh noise, and leaves out the arms above but the
first. One of the three and one class a call is meant to stay below ten minutes.

``--denoiser FILE`` compares PureEBM with PureDDPM and their chains (Naive, Reps and
Filt of PureGen) in place of JPEG and noise. Where there is no such file, a network is
trained first on the attacker's images and kept there; one call for that and one class,
at ``--poison-rate 0.01`` and again at ``0.1``, are meant to stay below ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bezoar.attacks import FaintPattern, Narcissus
from bezoar.bench.machine import commit, machine
from bezoar.bench.plain_data import read_plain
from bezoar.bench.recipe import off_grid
from bezoar.bench.training_baselines import BASELINES, Trainer, while_training
from bezoar.data import ImageData, content_keys, join, to_uint8
from bezoar.metrics import evaluate
from bezoar.models import Architecture, load_denoiser, save_denoiser
from bezoar.purify import (
    Chain,
    EnergyFilter,
    PureDDPM,
    PureEBM,
    ShortcutSqueezing,
)
from bezoar.runtime import Runtime, generator
from bezoar.train import (
    DenoiserTraining,
    Training,
    train_classifier,
    train_denoiser,
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the run is."""

    victims: int  # rows 0 on of the training images
    pool: tuple[int, int]  # first row and number of rows that the attacker has
    network: str
    width: int
    training: Training
    passes: int
    steps: int
    denoiser: DenoiserTraining


SIZES = {
    "paper": Size(
        victims=35_000,
        pool=(35_000, 14_000),
        network="resnet18",
        width=64,
        training=Training(epochs=30, batch_size=256, lr=0.2, augment="crop_flip"),
        passes=300,
        steps=150,
        denoiser=DenoiserTraining(),
    ),
    "tiny": Size(
        victims=300,
        pool=(300, 200),
        network="convnet",
        width=4,
        training=Training(epochs=1),
        passes=2,
        steps=3,
        denoiser=DenoiserTraining(
            channels=(4, 4), num_blocks=1, epochs=1, batch_size=100
        ),
    ),
}
Arm = Callable[[ImageData], Tensor]
FILTER = "Filt"  # ranks the whole set, so that poison is not purified by itself


def main(argv: list[str] | None = None) -> int:
    """Run the recipe; print one JSON line for each class and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--energy", default="cifar10-nf32", help="name or file")
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 0, 1])
    parser.add_argument("--poison-rate", type=float, default=0.01)
    parser.add_argument("--denoiser", type=Path, help="its file; made if missing")
    parser.add_argument(
        "--baselines", nargs="+", choices=("jpeg", *BASELINES), default=[]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    options = parser.parse_args(argv)
    size, start = SIZES[options.size], time.perf_counter()
    runtime = Runtime(device=options.device, batch_size=512)
    train = off_grid(read_plain(options.data, "train"))
    test = off_grid(read_plain(options.data, "test"))
    victims = train.take(torch.arange(size.victims))
    first, count = size.pool
    pool = train.take(torch.arange(first, first + count))
    surrogate = trained(
        surrogate_data(pool, victims, classes=options.classes),
        size,
        seed=options.seed + 1000,
        runtime=runtime,
    )
    if options.baselines:
        arms = squeezes(options.baselines)
    elif options.denoiser:
        arms = chains(
            size,
            pool,
            energy=options.energy,
            path=options.denoiser,
            seed=options.seed,
            runtime=runtime,
        )
    else:
        arms = defences(size, energy=options.energy, seed=options.seed, runtime=runtime)
    plain = partial(trained, size=size, seed=options.seed, runtime=runtime)
    trainers: dict[str, Trainer] = {
        **dict.fromkeys(arms, plain),
        **while_training(
            options.baselines,
            build=lambda data: fresh(data, size, seed=options.seed),
            settings=size.training,
            seed=options.seed,
            runtime=runtime,
        ),
    }
    bases, images_per_second = {}, 0.0
    for name, arm in arms.items():
        if name == FILTER:
            continue
        begin = time.perf_counter()
        bases[name] = arm(victims)
        if name == "PureEBM":
            images_per_second = len(victims) / (time.perf_counter() - begin)
    rows = []
    for target in options.classes:
        attack = Narcissus(target_class=target, passes=size.passes)
        pattern = attack.learn(
            victims, model=surrogate, seed=options.seed, runtime=runtime
        )
        pattern = replace(pattern, poison_rate=options.poison_rate)
        for name, trainer in trainers.items():
            row = judged(
                pattern,
                victims,
                base=None if name == FILTER else bases.get(name, victims.images),
                arm=arms.get(name, as_given),
                trainer=trainer,
                test=test,
                seed=options.seed,
                runtime=runtime,
            )
            row = {"class": target, "arm": name, **row}
            row["seconds"] = round(time.perf_counter() - start, 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(json.dumps(summary(rows, images_per_second, options)), flush=True)
    return 0


def summary(
    rows: list[dict[str, object]], images_per_second: float, options: argparse.Namespace
) -> dict[str, object]:
    """Return means over the classes and the worst class, arm by arm."""
    arms: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(str(row["arm"]) for row in rows):
        own = [row for row in rows if row["arm"] == name]
        rates = torch.tensor([row["success_x1"] for row in own], dtype=torch.float32)
        accuracy = torch.tensor([row["accuracy"] for row in own], dtype=torch.float32)
        arms[name] = {
            "success_mean": rates.mean().item(),
            "success_max": rates.max().item(),
            "accuracy_mean": accuracy.mean().item(),
        }
    return {
        "recipe": "pure_ebm_paper",
        "size": options.size,
        "energy": str(options.energy),
        "poison_rate": options.poison_rate,
        "seed": options.seed,
        "arms": arms,
        "images_per_second": round(images_per_second, 1),
        "machine": asdict(machine()),
        "commit": commit(),
    }


def surrogate_data(
    pool: ImageData, victims: ImageData, *, classes: list[int]
) -> ImageData:
    """Return what the attacker trains on: his own images, and the target classes."""
    is_target = torch.isin(victims.labels, torch.tensor(classes))
    own = pool.subset(~torch.isin(pool.labels, torch.tensor(classes)))
    return join([own, victims.subset(is_target)])


def as_given(data: ImageData) -> Tensor:
    """Return the images without a defence."""
    return data.images


def fresh(data: ImageData, size: Size, *, seed: int) -> torch.nn.Module:
    """Return a network that nobody has trained."""
    architecture = Architecture(
        name=size.network,
        num_classes=len(data.class_names),
        width=size.width,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
    )
    return architecture.build(seed)


def trained(
    data: ImageData, size: Size, *, seed: int, runtime: Runtime
) -> torch.nn.Module:
    """Train a classifier from scratch."""
    return train_classifier(
        fresh(data, size, seed=seed),
        data=data,
        settings=size.training,
        seed=seed,
        runtime=runtime,
    )


def defences(size: Size, *, energy: str, seed: int, runtime: Runtime) -> dict[str, Arm]:
    """Return the arms; noise moves each image as far as PureEBM does."""
    method, squeeze = PureEBM(steps=size.steps), ShortcutSqueezing(quality=75)

    def walked(data: ImageData) -> Tensor:
        done = method.purify(data, energy=energy, seed=seed, runtime=runtime)
        return done.data.images

    def noisy(data: ImageData) -> Tensor:
        step = walked(data).float() - data.images.float()
        levels = step.square().flatten(1).mean(1).sqrt()
        shape = data.images.shape[1:]
        streams = [generator(seed, "gauss", key) for key in content_keys(data.images)]
        noise = torch.stack([torch.randn(shape, generator=g) for g in streams])
        moved = data.images.float() + levels[:, None, None, None] * noise
        return to_uint8(moved / 255)

    return {
        "none": as_given,
        "PureEBM": walked,
        "JPEG 75": lambda data: squeeze.purify(data).data.images,
        "Gaussian of equal length": noisy,
    }


def chains(
    size: Size,
    pool: ImageData,
    *,
    energy: str,
    path: Path,
    seed: int,
    runtime: Runtime,
) -> dict[str, Arm]:
    """Return PureEBM, PureDDPM and their chains; the denoiser is trained if missing."""
    if not path.exists():
        net = train_denoiser(
            pool.images, settings=size.denoiser, seed=seed, runtime=runtime
        )
        save_denoiser(net, path)
    denoiser = load_denoiser(path)
    share = size.steps / 150  # of the published numbers of steps

    def steps(published: int) -> int:
        return max(1, round(published * share))

    methods: dict[str, PureEBM | PureDDPM | Chain | EnergyFilter] = {
        "PureEBM": PureEBM(steps=steps(150)),
        "PureDDPM": PureDDPM(steps=steps(75)),
        "Naive": Chain(energy_steps=steps(150), denoiser_steps=steps(75)),
        "Reps": Chain(energy_steps=steps(10), denoiser_steps=steps(50), num_repeats=5),
        FILTER: EnergyFilter(denoiser_steps=steps(125)),
    }

    def purified(
        method: PureEBM | PureDDPM | Chain | EnergyFilter, data: ImageData
    ) -> Tensor:
        if isinstance(method, PureEBM):
            done = method.purify(data, energy=energy, seed=seed, runtime=runtime)
        elif isinstance(method, PureDDPM):
            done = method.purify(data, denoiser=denoiser, seed=seed, runtime=runtime)
        else:
            done = method.purify(
                data, energy=energy, denoiser=denoiser, seed=seed, runtime=runtime
            )
        return done.data.images

    arms = {name: partial(purified, method) for name, method in methods.items()}
    return {"none": as_given, **arms}


def squeezes(baselines: list[str]) -> dict[str, Arm]:
    """Return no defence, and JPEG at four qualities if it was asked for."""

    def squeezed(quality: int, data: ImageData) -> Tensor:
        return ShortcutSqueezing(quality=quality).purify(data).data.images

    qualities = (25, 50, 75, 85) if "jpeg" in baselines else ()
    return {
        "none": as_given,
        **{f"JPEG {q}": partial(squeezed, q) for q in qualities},
    }


def judged(
    pattern: FaintPattern,
    victims: ImageData,
    *,
    base: Tensor | None,
    arm: Arm,
    trainer: Trainer,
    test: ImageData,
    seed: int,
    runtime: Runtime,
) -> dict[str, object]:
    """Train on what a defence left of a poisoned set; return the rates."""
    drill = pattern.poison(victims, seed=seed)
    if base is None:
        images = arm(drill.data)
    else:  # what becomes of an image does not depend on the others
        images = base.clone()
        images[drill.is_poison] = arm(drill.data.subset(drill.is_poison))
    model = trainer(replace(drill.data, images=images))
    found: dict[str, object] = {"poisons": len(drill.poison_indices)}
    for times in (1, 2, 3):
        shown = replace(pattern, magnification=float(times))
        result = evaluate(model, test, attack=shown, runtime=runtime)
        found["accuracy"] = result.clean_accuracy
        found[f"success_x{times}"] = result.attack_success_rate
    return found


if __name__ == "__main__":
    sys.exit(main())
