"""The audit on CIFAR-10: a dot in a corner is the first candidate, chance is none.

A white dot is put on 95 % of one class and on 1 % of the others, and a network is
trained on it. Twelve columns of metadata, one of them telling of the dot, are compared
with the masks of the first 2,500 rows. Then the dot's column is shuffled, twenty times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.data import ImageData
from bezoar.detect import CognitiveDistillation
from bezoar.metrics import shortcut_audit
from bezoar.models import Architecture
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import Training, train_classifier

NUM_IMAGES, NUM_SCORED, NUM_SHUFFLES = 5000, 2500, 20
MARKED, SHARE, OTHERS = 3, 0.95, 0.01
PROTOCOL = Training(epochs=15, batch_size=64)
DETECTOR = CognitiveDistillation.quick()


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Find the shortcut that a network was offered, and no other."""
    runtime = Runtime(progress=report)
    data, dot = marked(cifar10("train", limit=NUM_IMAGES), seed=claims.seed)
    network = Architecture(name="convnet", num_classes=10, width=32)
    model = train_classifier(
        network.build(claims.seed),
        data=data,
        settings=PROTOCOL,
        seed=claims.seed,
        runtime=runtime,
    )
    scored, dot = data.take(torch.arange(NUM_SCORED)), dot[:NUM_SCORED]
    found = DETECTOR.detect(scored, model=model, seed=claims.seed, runtime=runtime)
    columns = {**others(scored, seed=claims.seed), "dot": dot}
    audit = shortcut_audit(found, columns)
    claims.at_least("num_columns", len(columns), 10)
    claims.at_least("num_candidates", len(audit.candidates), 1)
    if not audit.candidates:
        return
    top = audit.candidates[0]
    claims.equal("first_column", f"{top.column}={top.value}", "dot=True")
    claims.equal("first_class", top.label, MARKED)
    reported = 0
    for shuffle in range(NUM_SHUFFLES):
        order = torch.randperm(len(dot), generator=generator(shuffle, "shuffle"))
        again = shortcut_audit(found, {**columns, "dot": dot[order]})
        reported += any(row.column == "dot" for row in again.candidates)
    claims.at_most("shuffled_reported", reported, 0)
    claims.facts["rank_share"] = round(top.rank_share, 4)
    claims.facts["p_value"] = top.corrected_p_value
    claims.facts["small_masks"] = [top.num_small_with, top.num_small]
    claims.facts["class"] = [top.num_with, top.num_images]
    claims.facts["candidates"] = [
        [row.label, row.column, row.value, round(row.rank_share, 3)]
        for row in audit.candidates
    ]
    claims.facts["seconds"] = round(found.provenance.seconds, 1)


def marked(data: ImageData, *, seed: int) -> tuple[ImageData, Tensor]:
    """Return the images with their dots, and which have one."""
    chance = torch.where(data.labels == MARKED, SHARE, OTHERS)
    dot = torch.rand(len(data), generator=generator(seed, "dot")) < chance
    images = data.images.clone()
    images[dot, :, 1:4, 1:4] = 255
    return replace(data, images=images), dot


def others(data: ImageData, *, seed: int) -> dict[str, Tensor]:
    """Return eleven columns that have nothing to do with the dot."""
    pixels = data.images.float() / 255
    stream = generator(seed, "columns")
    columns = {
        "brightness": pixels.mean((1, 2, 3)),
        "contrast": pixels.std((1, 2, 3)),
        "red": pixels[:, 0].mean((1, 2)) - pixels.mean((1, 2, 3)),
        "blue": pixels[:, 2].mean((1, 2)) - pixels.mean((1, 2, 3)),
    }
    for i, rate in enumerate((0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)):
        columns[f"chance{i}"] = torch.rand(len(data), generator=stream) < rate
    return columns


if __name__ == "__main__":
    sys.exit(main("bias_audit", body))
