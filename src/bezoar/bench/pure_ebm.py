"""The speed of PureEBM against the plain loop, with the network that ships."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.bench.recipe import cifar10, off_grid
from bezoar.bench.records import Record, compare
from bezoar.bench.reference.langevin import purify_plain
from bezoar.data import ImageData, content_keys
from bezoar.metrics import psnr
from bezoar.models import load_energy
from bezoar.models.langevin import keyed_noise
from bezoar.purify import PureEBM
from bezoar.runtime import Runtime

ENERGY, BATCH = "cifar10-nf32", 128
_CPU = torch.device("cpu")


def bench_pure_ebm(*, num_runs: int = 5) -> list[Record]:
    """Measure the public method against the plain loop in batches of 128.

    Both sides get the same noise, and draw it themselves.

    Args:
        num_runs: Runs of each side, at least 5; a run is 128 images and 150 steps,
            after one run of each side that is not counted.

    Returns:
        One record.
    """
    method, net = PureEBM(), load_energy(ENERGY)
    data = off_grid(cifar10("test", limit=BATCH * (num_runs + 1)))
    slow, fast, plain, ours = [], [], [], []
    for run in range(num_runs + 1):
        part = data.take(torch.arange(run * BATCH, (run + 1) * BATCH))
        images, plain_seconds = _plain(part, method.steps)
        begin = time.perf_counter()
        done = method.purify(part, energy=net, runtime=Runtime())
        seconds = time.perf_counter() - begin
        if run > 0:
            slow.append(BATCH / plain_seconds)
            fast.append(BATCH / seconds)
            plain.append(images)
            ours.append(done.data.images)
    before = data.images[BATCH:]
    distances = [
        psnr(a, b).mean().item()
        for a, b in (
            (before, torch.cat(plain)),
            (before, torch.cat(ours)),
            (torch.cat(plain), torch.cat(ours)),
        )
    ]
    return [
        compare(
            f"PureEBM, {method.steps} steps, {torch.get_num_threads()} threads",
            before=slow,
            after=fast,
            unit="images/s",
            higher_is_better=True,
            warmup=1,
            equality="bfloat16 against float32: PSNR to the original "
            f"{distances[0]:.2f} dB of the plain loop, {distances[1]:.2f} of ours, "
            f"{distances[2]:.1f} between them; in float32 equal to one grey level "
            "(tests/purify/test_pure_ebm.py)",
            forwards_per_image={
                "plain": 3 * method.steps,
                "ours": 2 * method.steps + 2,
            },
        )
    ]


def _plain(part: ImageData, steps: int) -> tuple[Tensor, float]:
    """Return what the plain loop makes of a batch, and its seconds."""
    net = load_energy(ENERGY).requires_grad_(True)
    keys = content_keys(part.images)
    begin = time.perf_counter()
    channels, height, width = part.images.shape[1:]
    side = net.patch_size  # noise is drawn as the chains of ours lie
    shape = (height // side, width // side, channels * side**2)
    drawn = keyed_noise(keys, shape=shape, seed=0, stream="langevin", device=_CPU)
    noise = (functional.pixel_shuffle(z.movedim(3, 1), side) for z in drawn)
    found = purify_plain(part.images, net=net, noise=lambda _: next(noise), steps=steps)
    return found, time.perf_counter() - begin
