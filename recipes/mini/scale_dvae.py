"""D-VAE's time and memory against the number of images, on images made on the spot.

Three sets of 12,500, 25,000 and 50,000 images of 32x32 pixels are purified, each in a
process of its own, by autoencoders so thin that an epoch of them is quick: what grows
with the set is the same at any width. What a step of the full width takes besides is
measured on few images. ``DVAE.quick``, which trains nothing, takes the same sets. No
images are needed; ``--largest N`` shrinks all sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from bezoar.bench.recipe import Claims, main
from bezoar.data import ImageData, noise_images
from bezoar.errors import BezoarError
from bezoar.purify import DVAE
from bezoar.runtime import Progress, Runtime

LONG = True  # 87,500 images pass two autoencoders
LARGEST, FEW = 50_000, 256
LIMIT_GIB = 3.0
THIN = DVAE(width=4, latent_width=8, epochs=1, batch_size=250)
SMALL = DVAE(width=2, latent_width=4, epochs=1)  # what the full width is held against
FULL = DVAE(epochs=1)
METHODS = {"thin": THIN, "small": SMALL, "full": FULL, "quick": DVAE.quick()}
_WARM_UP = 2_500  # images: the first steps are slower, whatever the size


def body(
    claims: Claims, report: Callable[[Progress], None], largest: int = LARGEST
) -> None:
    """Measure time and memory of D-VAE at three sizes."""
    sizes = [largest // 4, largest // 2, largest]
    runs = []
    for done, size in enumerate(sizes, start=1):
        runs.append(measured("thin", size))
        report(Progress(stage="sizes", done=done, total=len(sizes)))
    costs = [run["seconds"] / size for run, size in zip(runs, sizes, strict=True)]
    growth = [b["gib"] - a["gib"] for a, b in pairwise(runs)]
    few = {kind: measured(kind, FEW)["gib"] for kind in ("small", "full")}
    quick = [measured("quick", size)["seconds"] for size in sizes]
    # A step at full width, or its pass, comes before what is held at the end.
    working = runs[-1]["working_gib"] + few["full"] - few["small"]
    whole = max(runs[-1]["gib"], working)
    # Linear: an image costs the same at all sizes, and twice the images add twice.
    claims.at_most("time of an image, dearest size", max(costs) / min(costs), 1.3)
    claims.at_most("memory added by the second half, to the first", _ratio(growth), 2.6)
    claims.at_most("GiB for all images, thin", runs[-1]["gib"], LIMIT_GIB)
    claims.at_most("GiB for all images and a step at full width", whole, LIMIT_GIB)
    shown = ", ".join(f"{took:.0f}" for took in quick)
    claims.reported("seconds of all sizes, quick", shown)
    claims.facts["sizes"] = sizes
    claims.facts["seconds"] = [round(run["seconds"], 1) for run in runs]
    claims.facts["gib"] = [round(run["gib"], 3) for run in runs]
    claims.facts["working_gib"] = [round(run["working_gib"], 3) for run in runs]
    claims.facts["gib_of_few"] = {kind: round(gib, 3) for kind, gib in few.items()}


def measured(kind: str, size: int) -> dict[str, float]:
    """Purify a set of some size in a process of its own.

    Args:
        kind: Which of ``METHODS``.
        size: Images.

    Returns:
        "seconds", and the most memory that the process held: "gib", and "working_gib",
        until the last image had passed.

    Raises:
        BezoarError: If the process failed.
    """
    words = [sys.executable, __file__, "--one", kind, str(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise BezoarError(f"expected {size} images to be purified, got {last}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def one(kind: str, size: int) -> dict[str, float]:
    """Purify images made on the spot, and say what it took."""
    if size > _WARM_UP:
        METHODS[kind].purify(images(_WARM_UP // 10))
    data, marks = images(size), [0.0]
    begin = time.perf_counter()
    METHODS[kind].purify(
        data, runtime=Runtime(progress=lambda _: marks.append(_held()))
    )
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "gib": _held(), "working_gib": marks[-1]}


def _held() -> float:
    # In KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def images(count: int) -> ImageData:
    """Return images of ten classes, of which no two are equal."""
    few = noise_images(min(count, 1000), size=32)
    repeats = -(-count // len(few))
    pixels = few.images.repeat(repeats, 1, 1, 1)[:count]
    number = torch.arange(count)
    pixels[:, 0, 0, 0], pixels[:, 1, 0, 0] = number % 256, number // 256 % 256
    return replace(
        few,
        images=pixels,
        labels=number % 10,
        ids=tuple(map(str, range(count))),
        class_names=tuple(map(str, range(10))),
    )


def _ratio(growth: list[float]) -> float:
    first, second = growth
    return second / first if first > 0 else float("inf")


def script(argv: list[str] | None = None) -> int:
    """Run the recipe, or one of its processes; return the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--largest", type=int, default=LARGEST)
    options, rest = parser.parse_known_args(argv)
    if options.one:
        kind, size = options.one
        print(json.dumps(one(kind, int(size))))
        return 0

    def chosen(claims: Claims, report: Callable[[Progress], None]) -> None:
        body(claims, report, options.largest)

    chosen.__doc__ = body.__doc__
    return main("scale_dvae", chosen, rest)


if __name__ == "__main__":
    sys.exit(script())
