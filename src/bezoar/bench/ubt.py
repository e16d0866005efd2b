"""The speed of scoring pairs against the released isolation script's way."""

from __future__ import annotations

import time

import torch

from bezoar.bench.records import Record, compare
from bezoar.bench.reference.ubt import isolate_plain
from bezoar.data import digit_pairs, digit_prompts
from bezoar.metrics import similarities
from bezoar.models import TinyClip, WordTokenizer
from bezoar.runtime import Runtime

NUM_PAIRS = 3000
_BOUND = 1e-5


def bench_ubt(*, num_runs: int = 5) -> list[Record]:
    """Measure the scoring pass against the plain loop, with the small model.

    Both in float32 on the same pairs; ours on all threads, the plain loop on one, as
    the script does.

    Args:
        num_runs: Runs of each side, at least 5; a run scores 3,000 pairs, after one
            run of each side that is not counted.

    Returns:
        One record.

    Raises:
        AssertionError: If the cosines differ by more than 1e-5.
    """
    data = digit_pairs("victim", num_pairs=NUM_PAIRS)
    words = WordTokenizer.from_captions([t for own in digit_prompts() for t in own])
    model = TinyClip(words, resolution=24).eval()
    runtime = Runtime(dtype=torch.float32, batch_size=256)
    slow, fast, worst = [], [], 0.0
    for run in range(num_runs + 1):
        begin = time.perf_counter()
        table = isolate_plain(model, data)
        middle = time.perf_counter()
        cosines = similarities(model, data, runtime=runtime)
        end = time.perf_counter()
        apart = (torch.from_numpy(table[:, 1]).float() - cosines).abs().max().item()
        worst = max(worst, apart)
        if worst > _BOUND:
            raise AssertionError(f"cosines differ by {worst}, more than {_BOUND}")
        if run > 0:
            slow.append(NUM_PAIRS / (middle - begin))
            fast.append(NUM_PAIRS / (end - middle))
    return [
        compare(
            f"UBT, scoring of {NUM_PAIRS} pairs, {torch.get_num_threads()} threads",
            before=slow,
            after=fast,
            unit="pairs/s",
            higher_is_better=True,
            warmup=1,
            equality=f"cosines equal to {worst:.1g} (tests/bench/test_ubt.py: 1e-5)",
            forwards_per_image={"plain": 1, "ours": 1},
        )
    ]
