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

NUM_PLAIN, NUM_PAIRS = 3000, 20_000
# Of cosines: sums in another order, and an error of 2^-8 in each factor.
_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def bench_ubt(*, num_runs: int = 5) -> list[Record]:
    """Measure the scoring pass against the plain loop, with the small model.

    Ours runs on all threads, the plain loop on one and in float32, as the script does.
    Each run scores the same 3,000 pairs in the plain way and 20,000 in ours, which
    begin with them: the plain loop slows down with the number of pairs, so that the
    ratio errs to its side.

    Args:
        num_runs: Runs of each side, at least 5, after one that is not counted.

    Returns:
        One record in float32, and one in bfloat16, the default where it is fast.

    Raises:
        AssertionError: If the cosines differ by more than 1e-5, in bfloat16 0.02.
    """
    data = digit_pairs("victim", num_pairs=NUM_PAIRS)
    first = data.take(torch.arange(NUM_PLAIN))
    words = WordTokenizer.from_captions([t for own in digit_prompts() for t in own])
    model = TinyClip(words, resolution=24).eval()
    slow: list[float] = []
    fast: dict[torch.dtype, list[float]] = {dtype: [] for dtype in _BOUNDS}
    worst = dict.fromkeys(_BOUNDS, 0.0)
    for _ in range(num_runs + 1):
        begin = time.perf_counter()
        table = torch.from_numpy(isolate_plain(model, first)[:, 1]).float()
        slow.append(NUM_PLAIN / (time.perf_counter() - begin))
        for dtype, bound in _BOUNDS.items():
            begin = time.perf_counter()
            cosines = similarities(
                model, data, runtime=Runtime(dtype=dtype, batch_size=256)
            )
            fast[dtype].append(NUM_PAIRS / (time.perf_counter() - begin))
            apart = (table - cosines[:NUM_PLAIN]).abs().max().item()
            worst[dtype] = max(worst[dtype], apart)
            if apart > bound:
                raise AssertionError(f"cosines differ by {apart}, more than {bound}")
    return [
        compare(
            f"UBT, scoring of pairs, {str(dtype).removeprefix('torch.')}, "
            f"{torch.get_num_threads()} threads",
            before=slow[1:],
            after=fast[dtype][1:],
            unit="pairs/s",
            higher_is_better=True,
            warmup=1,
            equality=f"cosines within {worst[dtype]:.1g} (tests/bench/test_ubt.py)",
            forwards_per_image={"plain": 1, "ours": 1},
        )
        for dtype in _BOUNDS
    ]
