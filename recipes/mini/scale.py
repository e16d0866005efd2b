"""Images per second and memory at ten thousand, a hundred thousand, a million images.

Each size is a set of parquet shards with PNG files, made in a temporary folder, and a
detection from end to end in a process of its own: blocks are read and decoded, scored
and kept on disk, judged, and written as a table. The scorer is the cheapest that is,
STRIP with two overlays on a linear network, so that what is measured is the engine.
Then a dearer scorer runs on one and on two workers of Ray. No images are needed;
``--largest N`` shrinks all sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from bezoar.bench.machine import peak_mib
from bezoar.bench.recipe import Claims, main
from bezoar.data import noise_images, open_source
from bezoar.detect import Strip
from bezoar.engine import RayEngine, detect_source
from bezoar.errors import BezoarError
from bezoar.models import convnet
from bezoar.runtime import Progress, Runtime
from bezoar.storage import save_detection

LONG = True  # 1,110,000 images are read twice
LARGEST, SHARD, FILES = 1_000_000, 50_000, 1000
SIZE, CLASSES = 8, 10
ON_RAY = 50  # of the largest set, for the dearer scorer
# Set before anything was measured. What grows is the table of scores, some 150 bytes
# for an image: its id, a row of numbers, a place in the check for repeated ids.
MEMORY_FACTOR, MEMORY_MIB = 1.25, 100
LEAST_RATE = 0.8  # of the set a tenth as large
LEAST_GAIN = 1.2  # of two workers over one; they share two cores with the reader


def body(
    claims: Claims, report: Callable[[Progress], None], largest: int = LARGEST
) -> None:
    """Measure the engine at three sizes, and on one and two workers of Ray."""
    sizes = [largest // 100, largest // 10, largest]
    runs = []
    for done, size in enumerate(sizes, start=1):
        runs.append(measured("local", size))
        report(Progress(stage="sizes", done=done, total=len(sizes)))
    rates = [size / run["seconds"] for size, run in zip(sizes, runs, strict=True)]
    for size, rate, run in zip(sizes, rates, runs, strict=True):
        claims.reported(f"images per second, {size} images", rate)
        claims.reported(f"peak MiB, {size} images", run["mib"])
    gate = round(MEMORY_FACTOR * runs[1]["mib"] + MEMORY_MIB)
    claims.at_most("peak MiB, largest set", runs[2]["mib"], gate)
    claims.at_least("rate, largest to a tenth", rates[2] / rates[1], LEAST_RATE)
    claims.facts["seconds"] = [round(run["seconds"], 1) for run in runs]
    if find_spec("ray") is None:
        claims.facts["ray"] = "not installed"
        return
    size = largest // ON_RAY
    pairs = [(measured("ray1", size), measured("ray2", size)) for _ in range(2)]
    gain = max(one["rate"] for one, _ in pairs), max(two["rate"] for _, two in pairs)
    claims.at_least("two workers of Ray, to one", gain[1] / gain[0], LEAST_GAIN)
    claims.facts["images per second on 1 and 2 workers"] = [
        [round(run["rate"]) for run in pair] for pair in pairs
    ]


def measured(kind: str, size: int) -> dict[str, float]:
    """Detect in a set of some size, in a process of its own.

    Args:
        kind: "local", or "ray1" and "ray2" for the dearer scorer on workers.
        size: Images.

    Returns:
        "seconds" from opening the set to the table on disk, "rate" of the scoring
        alone in images per second, and "mib", the most memory that the process held.

    Raises:
        BezoarError: If the process failed.
    """
    with TemporaryDirectory(prefix="bezoar-scale-") as folder:
        make(Path(folder, "set"), size)
        words = [sys.executable, __file__, "--one", kind, folder]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise BezoarError(f"expected {size} images to be scored, got {last}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def make(folder: Path, size: int) -> None:
    """Write a set of parquet shards with PNG files of a thousand different images."""
    pictures = noise_images(FILES, size=SIZE).images.permute(0, 2, 3, 1).numpy()
    files = []
    for picture in pictures:
        file = BytesIO()
        Image.fromarray(picture).save(file, "png")
        files.append(file.getvalue())
    column = pa.array(files)
    folder.mkdir()
    for first in range(0, size, SHARD):
        turns = np.arange(first, min(first + SHARD, size))
        images = column.take(pa.array(turns % FILES))
        table = pa.table({"image": images, "label": turns % CLASSES})
        path = folder / f"part-{first // SHARD:05d}.parquet"
        pq.write_table(table, path, use_dictionary=False, compression="none")


def one(kind: str, folder: Path) -> dict[str, float]:
    """Detect in the set that was made in a folder, and say what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    method, engine = Strip(num_overlays=2), None
    pixels = 3 * SIZE * SIZE
    model: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(pixels, CLASSES))
    if kind != "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        method, model = Strip(num_overlays=100), convnet(CLASSES, width=8)
        engine = RayEngine(num_workers=int(kind.removeprefix("ray")))
    seen: list[tuple[float, Progress]] = []

    def note(progress: Progress) -> None:
        if progress.stage == "score":
            seen.append((time.perf_counter(), progress))

    begin = time.perf_counter()
    found, unreadable = detect_source(
        open_source(folder / "set"),
        method=method,
        model=model,
        image_size=(SIZE, SIZE),
        runtime=Runtime(
            dtype=torch.float32,
            block_size=256 if engine else 1024,
            work_dir=folder / "work",
            progress=note,
            engine=engine,
        ),
    )
    save_detection(found, folder / "run", unreadable=unreadable)
    seconds = time.perf_counter() - begin
    # From the second block on, when all workers are there.
    (first, early), (last, late) = seen[len(seen) // 4], seen[-1]
    rate = (late.done - early.done) / max(last - first, 1e-9)
    return {"seconds": seconds, "rate": rate, "mib": peak_mib()}


def script(argv: list[str] | None = None) -> int:
    """Run the recipe, or one of its processes; return the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--largest", type=int, default=LARGEST)
    options, rest = parser.parse_known_args(argv)
    if options.one:
        kind, folder = options.one
        print(json.dumps(one(kind, Path(folder))))
        return 0
    chosen = partial(body, largest=options.largest)
    chosen.__doc__ = body.__doc__
    return main("scale", chosen, rest)


if __name__ == "__main__":
    sys.exit(script())
