"""Measures our kernels against the plain loops: ``python -m bezoar.bench``.

Both sides run in turns in one process. With ``--record FILE`` the lines are added to a
file of records.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bezoar.bench.cognitive_distillation import METHODS, bench_cognitive_distillation
from bezoar.bench.dvae import METHODS as DVAE_STEPS
from bezoar.bench.dvae import bench_dvae
from bezoar.bench.mimic import METHODS as MIMIC_PARTS
from bezoar.bench.mimic import bench_mimic
from bezoar.bench.pure_ebm import bench_pure_ebm
from bezoar.bench.records import append
from bezoar.bench.ubt import bench_ubt
from bezoar.errors import BezoarError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print a line for each.

    Args:
        argv: The command line; None takes the process's own.

    Returns:
        Exit code: 0 done, 2 for an error.
    """
    every = (*METHODS, "pure-ebm", *DVAE_STEPS, *MIMIC_PARTS, "ubt")
    parser = argparse.ArgumentParser(prog="python -m bezoar.bench", description=__doc__)
    parser.add_argument("--record", type=Path, help="file of records to add to")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(every)}")
    options = parser.parse_args(argv)
    try:
        names = options.names or every
        if unknown := set(names) - set(every):
            parser.error(f"expected some of {', '.join(every)}, got {unknown}")
        records = [
            *bench_cognitive_distillation(
                [name for name in names if name in METHODS], num_runs=options.runs
            ),
            *(bench_pure_ebm(num_runs=options.runs) if "pure-ebm" in names else ()),
            *bench_dvae(
                [name for name in names if name in DVAE_STEPS], num_runs=options.runs
            ),
            *bench_mimic(
                [name for name in names if name in MIMIC_PARTS], num_runs=options.runs
            ),
            *(bench_ubt(num_runs=options.runs) if "ubt" in names else ()),
        ]
        for record in records:
            print(
                f"{record.what}: {record.before:.1f} -> {record.after:.1f} "
                f"{record.unit}, {record.mean:.1f} +- {record.spread:.1f} times "
                f"(n = {record.n}); {record.equality}"
            )
            if options.record is not None:
                append(record, options.record)
    except BezoarError as error:
        print(f"bezoar.bench: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
