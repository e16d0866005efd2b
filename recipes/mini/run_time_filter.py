"""A filter in front of a service: the false alarms asked for, and triggers caught.

A small network is trained on 5,000 CIFAR-10 images, 5 % of them with BadNets. Clean
test images make the reference; others, clean and triggered, then come one by one, as
they would to a service. The network that answers is the backdoored one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from bezoar.attacks import BadNets
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.detect import CognitiveDistillation
from bezoar.engine import RunTimeFilter
from bezoar.models import Architecture
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

NUM_IMAGES, NUM_REFERENCE, NUM_CHECKED, NUM_TIMED = 5000, 1000, 500, 20
PROTOCOL = Training(epochs=15, batch_size=64)
METHOD = CognitiveDistillation()
RATE = 0.05
# Three standard errors, of the quantile of the reference and of the count checked.
ALARMS = RATE + 3 * (RATE * (1 - RATE) * (1 / NUM_REFERENCE + 1 / NUM_CHECKED)) ** 0.5
CAUGHT = 0.90  # set before anything was measured


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Hold a filter to its false-alarm rate, and count the triggers that it catches."""
    runtime = Runtime(progress=report)
    attack = BadNets(poison_rate=0.05)
    poisoned = attack.poison(cifar10("train", limit=NUM_IMAGES), seed=claims.seed)
    network = Architecture(name="convnet", num_classes=10, width=32).build(claims.seed)
    model = train_classifier(
        network, data=poisoned.data, settings=PROTOCOL, seed=claims.seed
    )
    clean = cifar10("test", limit=NUM_REFERENCE)
    found = METHOD.detect(clean, model=model, seed=claims.seed, runtime=runtime)
    guard = RunTimeFilter.made_from(
        found,
        data=clean,
        model=model,
        method=METHOD,
        false_alarm_rate=RATE,
        runtime=runtime,
    )
    later = cifar10("test", limit=2 * NUM_CHECKED, skip=NUM_REFERENCE)
    innocent = later.images[:NUM_CHECKED]
    others = later.images[NUM_CHECKED:][later.labels[NUM_CHECKED:] != 0]
    triggered = attack.apply(others)
    with torch.no_grad():
        answers = model(triggered.float() / 255).argmax(1)
    worked = triggered[answers == 0]
    claims.at_least("success_rate", len(worked) / len(triggered), 0.95)
    alarms = guard.check(innocent).flagged.float().mean().item()
    claims.at_most("false_alarms", alarms, round(ALARMS, 4))
    caught = guard.check(worked).flagged.float().mean().item()
    claims.at_least("triggers_caught", caught, CAUGHT)
    claims.reported("seconds for an image alone", seconds_alone(guard, innocent))
    begin = time.perf_counter()
    guard.check(innocent)
    each = (time.perf_counter() - begin) / len(innocent)
    claims.reported("seconds for an image in a batch", round(each, 4))
    same = [guard.check(image[None]).raw for image in innocent[:NUM_TIMED]]
    together = guard.check(innocent[:NUM_TIMED]).raw
    gap = (torch.cat(same) - together).abs().max().item()
    claims.at_most("change by company", gap, 1e-4)


def seconds_alone(guard: RunTimeFilter, images: Tensor) -> float:
    """Return the median time of one image, after one that is not counted."""
    taken = []
    for image in images[: NUM_TIMED + 1]:
        begin = time.perf_counter()
        guard.check(image[None])
        taken.append(time.perf_counter() - begin)
    return round(median(taken[1:]), 3)


if __name__ == "__main__":
    sys.exit(main("run_time_filter", body))
