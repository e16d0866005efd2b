"""How many steps of PureEBM a white-box attack takes, and what they cost, on CIFAR-10.

The attack of ``pure_ebm.py`` for three networks of features, trained from three seeds,
with ten chosen images each. One walk goes through all lengths, for a short walk is the
beginning of a long one. The length in that recipe was chosen here, by its three seeds
together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from bezoar.attacks.bullseye_polytope import feature_maps
from bezoar.bench.recipe import Claims, cifar10, main, off_grid
from bezoar.bench.transfer import NUM_FEATURES, TransferDrill, transfer_drill
from bezoar.data import ImageData, content_keys, to_uint8
from bezoar.models import Architecture, load_energy
from bezoar.purify import PureEBM
from bezoar.purify.energy_chains import Chains
from bezoar.purify.side_by_side import side_by_side
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

LONG = True  # 2,250 images walk 3,000 steps
ENERGY, METHOD = "cifar10-nf32", PureEBM.fine_tune()
GRID, CHOSEN = (500, 1000, 1500, 2000, 3000), 2000
NUM_VICTIMS, NUM_SEEDS = 10, 3
PROTOCOL = Training(epochs=8)
SHAPE = (3, 32, 32)

Row = Mapping[str, float]


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Poison transfer sets of three networks and purify them for longer and longer."""
    runtime = Runtime(progress=report)
    tables = [
        judged(seed, runtime=runtime)
        for seed in range(claims.seed, claims.seed + NUM_SEEDS)
    ]
    for steps in (0, *GRID):
        rows = [table[steps] for table in tables]
        success = [round(row["success"], 2) for row in rows]
        claims.reported(f"success after {steps}", ", ".join(map(str, success)))
        lost = fmean(t[0]["accuracy"] - t[steps]["accuracy"] for t in tables)
        claims.reported(f"accuracy lost after {steps}", round(lost, 4))
        if steps:
            shown = fmean(row["psnr"] for row in rows)
            claims.reported(f"PSNR after {steps}", round(shown, 1))
    undefended = min(table[0]["success"] for table in tables)
    claims.at_least("undefended, least", undefended, 0.60)
    left = fmean(table[CHOSEN]["success"] for table in tables)
    claims.at_most(f"mean success after {CHOSEN}", left, 0.20)
    worst = max(t[0]["accuracy"] - t[CHOSEN]["accuracy"] for t in tables)
    claims.at_most(f"accuracy lost after {CHOSEN}, most", worst, 0.06)


def judged(seed: int, *, runtime: Runtime) -> dict[int, Row]:
    """Return success, accuracy and PSNR by the number of steps; 0 for no defence.

    Args:
        seed: Seeds the network, the poison and the walks.
        runtime: Where and how to run.

    Returns:
        One row for each length.
    """
    model = train_classifier(
        Architecture(name="convnet", num_classes=10, width=32).build(seed=seed),
        data=off_grid(cifar10("train", limit=NUM_FEATURES)),
        settings=PROTOCOL,
        seed=seed,
        runtime=runtime,
    )
    probe = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    with feature_maps([model], probe, runtime=runtime) as (features,):
        drill = transfer_drill(
            features, num_victims=NUM_VICTIMS, seed=seed, runtime=runtime
        )
        found: dict[int, Row] = {
            0: drill.judged(lambda data: data.images, features=features, seed=seed)
        }
        for steps, images in walked(drill, seed=seed, runtime=runtime).items():
            found[steps] = drill.judged(images, features=features, seed=seed)
    return found


def walked(
    drill: TransferDrill, *, seed: int, runtime: Runtime
) -> dict[int, Callable[[ImageData], Tensor]]:
    """Return the two sets of a drill after each number of steps.

    Args:
        drill: Base set and poisons.
        seed: Seeds the walks.
        runtime: Where and how to run.

    Returns:
        By number of steps, what gives a set's images.
    """
    chains = Chains.of(load_energy(ENERGY), image_shape=SHAPE, runtime=runtime)
    images = {
        steps: {
            id(data): torch.empty_like(data.images)
            for data in (drill.base, drill.poisons)
        }
        for steps in GRID
    }

    def path(place: slice, *, stored: Tensor) -> list[Tensor]:
        ends = chains.trace(
            stored[place].float() / 127.5 - 1,
            keys=content_keys(stored[place]),
            grid=GRID,
            walk=METHOD.walk,
            seed=seed,
            stream="langevin",
        )
        return [to_uint8((states + 1) / 2) for states in ends]

    for data in (drill.base, drill.poisons):
        work, tiles = partial(path, stored=data.images), list(chains.tiles(len(data)))
        with side_by_side(work, tiles, device=chains.device) as results:
            for place, found in results:
                for steps, after_steps in zip(GRID, found, strict=True):
                    images[steps][id(data)][place] = after_steps
                done = Progress(stage="walk", done=place.stop, total=len(data))
                runtime.progress(done)

    def after(steps: int) -> Callable[[ImageData], Tensor]:
        return lambda data: images[steps][id(data)]

    return {steps: after(steps) for steps in GRID}


if __name__ == "__main__":
    sys.exit(main("pure_ebm_steps", body))
