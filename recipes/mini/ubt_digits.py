"""UBT on digits: a checkerboard that leads to "seven", found by its word and forgotten.

One seed of the recipe ``ubt``, without CleanCLIP: 90 of 3,000 pairs are planted and 150
have wrong captions. The reference and the victims are trained here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bezoar.bench.clip_minis import digits
from bezoar.bench.recipe import Claims, main
from bezoar.bench.ubt_claims import DIGITS, claim_all
from bezoar.runtime import Progress, Runtime

LONG = True  # a part of the recipe ubt


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Make an image-text model of digits forget what a few planted pairs taught it."""
    claim_all(
        claims,
        digits(claims.seed),
        DIGITS,
        seed=claims.seed,
        runtime=Runtime(batch_size=256, progress=report),
        with_clean_clip=False,
    )


if __name__ == "__main__":
    sys.exit(main("ubt_digits", body))
