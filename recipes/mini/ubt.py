"""UBT whole: the digits over three seeds, then photographs of CIFAR-10.

``--data digits`` or ``--data cifar10`` runs one of the two. Reference and victims are
trained here, with the same settings and gates for every seed; nothing is told about the
poison. Controls show that the backdoor does not go by itself, and CleanCLIP, on clean
pairs that UBT does without, stands in the same table: of the first digits and of the
photographs.

The parts need nothing of each other: as many run side by side as there are cores, each
on one thread, for networks this small gain little from a second one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from bezoar.bench.clip_minis import digits, photos
from bezoar.bench.recipe import Claims, main
from bezoar.bench.ubt_claims import DIGITS, PHOTOS, claim_all
from bezoar.runtime import Progress, Runtime

LONG = True
NUM_SEEDS = 3  # of the digits; the photographs take as long as two of them


def part_of(data: str, seed: int, *, with_clean_clip: bool) -> Claims:
    """Return what one part claims, worked out on one thread."""
    torch.set_num_threads(1)
    claims = Claims(seed=seed)
    claim_all(
        claims,
        digits(seed) if data == "digits" else photos(seed),
        DIGITS if data == "digits" else PHOTOS,
        seed=seed,
        runtime=Runtime(batch_size=256),
        with_clean_clip=with_clean_clip,
    )
    return claims


def body_of(data: str) -> Callable[[Claims, Callable[[Progress], None]], None]:
    """Return what the recipe does for a choice of data."""

    def body(claims: Claims, report: Callable[[Progress], None]) -> None:
        """Make image-text models forget what a few planted pairs taught them."""
        first = claims.seed
        parts = [] if data == "digits" else [("cifar10", first, True)]  # the longest
        if data != "cifar10":
            seeds = range(first, first + NUM_SEEDS)
            parts += [("digits", seed, seed == first) for seed in seeds]
        with ProcessPoolExecutor(
            max_workers=min(len(parts), os.cpu_count() or 1),
            mp_context=multiprocessing.get_context("spawn"),
        ) as pool:
            under_way = [
                pool.submit(part_of, name, seed, with_clean_clip=beside)
                for name, seed, beside in parts
            ]
            for done, future in enumerate(under_way, start=1):
                part = future.result()
                claims.rows += part.rows
                claims.facts |= part.facts
                report(Progress(stage="part", done=done, total=len(parts)))

    return body


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", choices=("both", "digits", "cifar10"), default="both")
    options, others = parser.parse_known_args()
    sys.exit(main("ubt", body_of(options.data), others))
