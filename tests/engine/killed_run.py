"""Run a slow detection again and again, kill it each time, and let it end at last.

A script of its own: it forks, so that the library is imported once and not for every
victim. It prints how many blocks each victim had finished when it was killed.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Container, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bezoar.data import Block, Unreadable, noise_images
from bezoar.detect import CognitiveDistillation
from bezoar.engine import detect_source
from bezoar.runtime import Runtime, generator
from bezoar.storage import save_detection

NUM_BLOCKS = 60


class Source:
    """Blocks of four images, of which every third block has one that is broken."""

    format = "memory"
    data = noise_images(4 * NUM_BLOCKS)
    class_names = data.class_names
    num_images = len(data)

    def blocks(
        self, block_size: int, *, image_size: tuple[int, int], skip: Container[int] = ()
    ) -> Iterator[Block]:
        assert (block_size, image_size) == (4, (8, 8))
        for index in range(NUM_BLOCKS):
            if index in skip:
                continue
            rows = torch.arange(4 * index, 4 * index + 4)
            bad = [Unreadable(id=f"noise/{4 * index}", reason="broken")]
            is_bad = index % 3 == 0
            data = self.data.take(rows[1:] if is_bad else rows)
            unreadable = tuple(bad) if is_bad else ()
            yield Block(index=index, data=data, unreadable=unreadable)


class SlowNet(nn.Module):
    """Two logits of an image, after a while."""

    def __init__(self) -> None:
        super().__init__()
        shape, stream = (2, 3 * 8 * 8), generator(0, "slow")
        self.weight = nn.Parameter(torch.randn(shape, generator=stream))

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.001)
        return images.flatten(1) @ self.weight.T


def detect(out: Path) -> None:
    runtime = Runtime(block_size=4, batch_size=4, work_dir=out / "work")
    method = CognitiveDistillation(steps=3, l1_weight=0.01, threshold="review")
    detection, unreadable = detect_source(
        Source(), method=method, model=SlowNet(), image_size=(8, 8), runtime=runtime
    )
    save_detection(detection, out, unreadable=unreadable)


def started(out: Path) -> int:
    victim = os.fork()
    if victim != 0:
        return victim
    try:
        torch.set_num_threads(1)
        detect(out)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(victim: int, *, by: int = 0) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
    assert code == -by, f"exit code {code}"


def count_blocks(out: Path) -> int:
    return len(list(out.glob("work/blocks/[0-9]*.parquet")))


def main() -> None:
    whole, killed = Path(sys.argv[1]), Path(sys.argv[2])
    chance = random.Random(int(sys.argv[3]))
    ended(started(whole))
    finished = [0]
    for _ in range(5):
        victim = started(killed)
        goal = finished[-1] + chance.randrange(7)
        for _ in range(20_000):  # not for ever, should the victim have failed
            if count_blocks(killed) >= goal:
                break
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))  # some blocks more
        os.kill(victim, signal.SIGKILL)
        ended(victim, by=signal.SIGKILL)
        finished.append(count_blocks(killed))
    ended(started(killed))
    sys.stdout.write(json.dumps(finished))


if __name__ == "__main__":
    main()
