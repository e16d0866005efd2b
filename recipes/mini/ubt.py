"""UBT whole: the digits over three seeds, then photographs of CIFAR-10.

``--data digits`` or ``--data cifar10`` runs one of the two. Reference and victims are
trained here, with the same settings and gates for every seed; nothing is told about the
poison. Controls show that the backdoor does not go by itself, and CleanCLIP, on clean
pairs that UBT does without, stands in the same table: of the first digits and of the
photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bezoar.bench.clip_minis import digits, photos
from bezoar.bench.recipe import Claims, main
from bezoar.bench.ubt_claims import DIGITS, PHOTOS, claim_all
from bezoar.runtime import Progress, Runtime

LONG = True
NUM_SEEDS = 3  # of the digits; the photographs take as long as all of them


def body_of(data: str) -> Callable[[Claims, Callable[[Progress], None]], None]:
    """Return what the recipe does for a choice of data."""

    def body(claims: Claims, report: Callable[[Progress], None]) -> None:
        """Make image-text models forget what a few planted pairs taught them."""
        runtime = Runtime(batch_size=256, progress=report)
        if data != "cifar10":
            for seed in range(claims.seed, claims.seed + NUM_SEEDS):
                claim_all(
                    claims,
                    digits(seed),
                    DIGITS,
                    seed=seed,
                    runtime=runtime,
                    with_clean_clip=seed == claims.seed,
                )
        if data != "digits":
            seed = claims.seed
            claim_all(claims, photos(seed), PHOTOS, seed=seed, runtime=runtime)

    return body


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", choices=("both", "digits", "cifar10"), default="both")
    options, others = parser.parse_known_args()
    sys.exit(main("ubt", body_of(options.data), others))
