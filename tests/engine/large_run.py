"""Score a parquet file by the mean pixel and print the memory that it took.

A script of its own, so that the peak is that of the run alone.
"""

import json
import sys
import time
from pathlib import Path

import torch

from bezoar.bench.machine import peak_mib
from bezoar.data import ImageData, open_source
from bezoar.engine import run_blocks
from bezoar.results import Scores
from bezoar.runtime import Runtime


def mean_pixel(data: ImageData) -> Scores:
    values = data.images.float().mean(dim=(1, 2, 3)) / 255
    return Scores(ids=data.ids, labels=data.labels, columns={"mean": values})


def main() -> None:
    torch.set_num_threads(1)
    scores, unreadable = run_blocks(
        open_source(Path(sys.argv[1])),
        mean_pixel,
        image_size=(32, 32),
        key="mean",
        runtime=Runtime(work_dir=Path(sys.argv[2])),
    )
    result = {
        "images": len(scores.ids),
        "unreadable": len(unreadable),
        "sum": scores.columns["mean"].double().sum().item(),
        "cpu_seconds": time.process_time(),
        "peak_mib": peak_mib(),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
