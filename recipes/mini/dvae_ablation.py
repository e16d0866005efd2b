"""What the parts of D-VAE do to even patches (LSP), on 2,000 images of CIFAR-10.

The set and the network of ``dvae.py``; each row changes a part of ``DVAE.mini()``.
Stated are the accuracy of a network trained on the result, how often a linear rule
tells the class from what sets the result apart from clean images ("told"), how much of
the noise is left, and PSNR to clean. Nothing here is a gate but that the attack works.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from bezoar.attacks import LSP
from bezoar.bench.recipe import Claims, cifar10, main, off_grid
from bezoar.bench.unlearnable import UnlearnableBench
from bezoar.data import ImageData
from bezoar.purify import DVAE, ShortcutSqueezing
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training

LONG = True  # ten purifications, and 13 trainings
NUM_IMAGES, NUM_TEST = 2000, 2000
PROTOCOL = Training(epochs=20)
MINI = DVAE.mini()
# With a decoder of perturbations both stages train; each gets half of the epochs.
TWICE = replace(
    MINI,
    perturbation_input="latent",
    smooth_noise=0.0,
    warm_start=True,
    epochs=MINI.epochs // 2,
)
VARIANTS = {
    "as it is": MINI,
    "the patterns alone, nothing trained": DVAE.quick(),
    "without smooth noise": replace(MINI, smooth_noise=0.0),
    "patterns alone, without smooth noise": replace(DVAE.quick(), smooth_noise=0.0),
    "a decoder of perturbations": TWICE,
    "a decoder told the class alone": replace(TWICE, perturbation_input="class"),
    "the second stage alone, with a decoder": replace(
        TWICE, stages="fine", warm_start=False, epochs=MINI.epochs
    ),
    "a higher rate": replace(MINI, fine_nats=8.0),
    "a lower rate": replace(MINI, fine_nats=2.0),
    "twice the width": replace(MINI, width=16, latent_width=64),
}


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Purify one set in many ways."""
    bench = UnlearnableBench(
        train=off_grid(cifar10("train", limit=NUM_IMAGES)),
        test=off_grid(cifar10("test", limit=NUM_TEST)),
        seed=claims.seed,
        runtime=Runtime(progress=report),
        protocol=PROTOCOL,
    )
    poisoned = LSP().poison(bench.train, seed=claims.seed).data
    claims.at_most("accuracy, poisoned", bench.accuracy(poisoned), 0.30)
    claims.reported("accuracy, clean", bench.accuracy(bench.train))
    for name, method in VARIANTS.items():
        done = method.purify(poisoned, seed=claims.seed, runtime=bench.runtime)
        taken = done.extras.get("rough_perturbation")
        along = (
            ""
            if taken is None
            else f", cosine {bench.cosine(taken, poisoned=poisoned):.2f}"
        )
        claims.reported(name, _row(bench, done.data, poisoned) + along)
    squeezed = ShortcutSqueezing(squeeze="jpeg").purify(poisoned).data
    claims.reported("JPEG in its place", _row(bench, squeezed, poisoned))


def _row(bench: UnlearnableBench, data: ImageData, poisoned: ImageData) -> str:
    row = bench.row(data)
    return (
        f"accuracy {row['accuracy']:.3f}, told {row['pixels']:.2f}, "
        f"left {bench.left(data, poisoned=poisoned):.2f}, PSNR {row['psnr']:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main("dvae_ablation", body))
