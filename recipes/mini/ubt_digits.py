"""UBT on digits: a checkerboard that leads to "seven", found by its word and forgotten.

Three seeds. The reference and the victims are trained here; 90 of 3,000 pairs are
planted and 150 more have wrong captions. Gates and settings are the same for all seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bezoar.bench.clip_minis import digits
from bezoar.bench.recipe import Claims, main
from bezoar.bench.ubt_claims import DIGITS, claim_all
from bezoar.runtime import Progress, Runtime

LONG = True  # until its seconds are measured


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Make image-text models of digits forget what a few planted pairs taught them."""
    for seed in range(claims.seed, claims.seed + 3):
        runtime = Runtime(batch_size=256, progress=report)
        claim_all(claims, digits(seed), DIGITS, seed=seed, runtime=runtime)


if __name__ == "__main__":
    sys.exit(main("ubt_digits", body))
