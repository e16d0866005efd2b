"""Train the energy networks that ship, on images that no recipe trains a victim on.

CIFAR-10 training rows 35,000 to 48,999 in file order; 49,000 to 49,999 validate. A run
that was killed or ran out of ``--minutes`` goes on from its checkpoint: call it again
with the same ``--work``. ``--minutes 0`` writes what the checkpoint holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bezoar.bench.machine import commit, machine
from bezoar.bench.recipe import cifar10, off_grid
from bezoar.models import EnergyNet, load_energy, save_energy
from bezoar.purify import calibrate_steps
from bezoar.runtime import Progress, Runtime
from bezoar.train import EnergyTraining, train_energy
from bezoar.train.energy import energy_quantiles

POOL, VALIDATION = (35_000, 14_000), (49_000, 1_000)  # first row, number of rows
_LARGER = replace(
    EnergyTraining.quick(),
    patch_size=1,
    num_updates=30_000,
    batch_size=128,
    chain_steps=50,
    rejuvenation_rate=0.025,
    bank_size=10_000,
)
SETTINGS = {
    "cifar10-nf32": EnergyTraining.quick(),
    "cifar10-nf64": replace(_LARGER, num_filters=64, lr=2e-4),
    "cifar10-nf128": replace(_LARGER, num_filters=128, lr=1e-4),
}
PROBES = 64


def main() -> int:
    """Train one network and write its weights and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--start", help="name or file of a network to go on from")
    parser.add_argument("--work", type=Path, help="folder for checkpoints")
    parser.add_argument("--updates", type=int, help="another number of updates")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--commit", default=commit(), help="that the run began with")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    settings = SETTINGS[options.name]
    if options.updates:
        settings = replace(settings, num_updates=options.updates)
    first, count = POOL
    pool = cifar10("train", limit=count, skip=first).images
    runtime = Runtime(device=options.device, progress=_show, work_dir=options.work)
    net = train_energy(
        pool,
        settings=settings,
        start=None if options.start is None else load_energy(options.start),
        minutes=options.minutes,
        seed=options.seed,
        runtime=runtime,
    )
    net.card = {
        "name": options.name,
        "data": f"CIFAR-10, training rows {first} to {first + count - 1}",
        **net.card,
        **described(net, pool, runtime=replace(runtime, work_dir=None)),
        "limits": "For 32x32 images like CIFAR-10, stored as JPEG with subsampled "
        "chroma. Smooth patterns survive it; see docs/methods/pure_ebm.md.",
        "machine": str(machine()),
        "commit": options.commit,
    }
    save_energy(net, options.out / f"{options.name}.safetensors")
    return 0


def described(net: EnergyNet, pool: Tensor, *, runtime: Runtime) -> dict[str, object]:
    """Return what the network does on images that it was not trained on."""
    first, count = VALIDATION
    unseen = off_grid(cifar10("train", limit=count, skip=first)).images
    with torch.no_grad():
        new, old = (
            torch.cat([net(x.float() / 255) for x in images.split(250)])
            for images in (unseen, pool[:count])
        )
    curve = calibrate_steps(
        unseen[:PROBES], energy=net, grid=(50, 150), seed=0, runtime=runtime
    )
    return {
        "clean_quantiles": energy_quantiles(net, unseen),
        "overfit": round(((new.mean() - old.mean()) / old.std()).item(), 4),
        "validation": {
            "data": f"CIFAR-10, training rows {first} to {first + count - 1}, "
            f"shifted by 3 pixels; the first {PROBES} for what follows",
            "psnr_after_150_steps": round(curve.psnr[-1], 2),
            "survival_after_150_steps": {
                name: round(values[-1], 3) for name, values in curve.survival.items()
            },
        },
    }


def _show(progress: Progress) -> None:
    figures = {name: round(value, 4) for name, value in progress.metrics.items()}
    print(json.dumps({"done": progress.done, **figures}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
