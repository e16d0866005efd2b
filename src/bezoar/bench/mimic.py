"""The speed of MIMIC's two phases against the loop as it was published.

The plain side runs in float32 as the official code does: three passes of the student
and two of the teacher a step, one of them with a gradient that nobody uses; in the
first phase the encoder runs anew for each layer and epoch. Views are drawn for neither
side. With the leak, each layer also carries the hooks that the official run has left
on it when the second phase begins: that is an estimate of the released loop, for it
was counted and not run to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bezoar.bench.records import Record, compare
from bezoar.bench.reference.mimic import plain_epoch, plain_loss
from bezoar.data import noise_images
from bezoar.models import SimCLR, simclr, stage_names
from bezoar.repair.information import Estimation, estimate_information
from bezoar.runtime import Runtime
from bezoar.train import EncoderProtocol
from bezoar.train.distillation import lesson
from bezoar.train.teacher import Teacher

METHODS = {
    "mimic": "a step of the second phase",
    "mimic-leak": "a step of the second phase, the released loop with its hooks",
    "mimic-information": "the first phase",
}
_LEFT = 6401  # hooks on each layer: four layers, 200 epochs, and so on
_WEIGHT = 3500.0
_BATCH, _EPOCHS = 32, 10

Side = Callable[[], None]


def bench_mimic(
    names: Sequence[str] = tuple(METHODS), *, num_runs: int = 5
) -> list[Record]:
    """Measure our parts and the published ones, in turns.

    Args:
        names: Which of ``METHODS`` to measure.
        num_runs: Runs of each side, at least 5, after one that is not counted.

    Returns:
        One record for each.
    """
    return [_race(name, num_runs=num_runs) for name in names]


def _race(name: str, *, num_runs: int) -> Record:
    sides = _phases() if name == "mimic-information" else _steps(leaks="leak" in name)
    plain, ours = sides
    before, after = [], []
    for run in range(num_runs + 1):  # the first is the warm-up
        slow, fast = (1 / _seconds(side) for side in (plain, ours))
        if run > 0:
            before.append(slow)
            after.append(fast)
    size = "ResNet-18, 32 pixels" if name == "mimic" else "tiny encoder, 16 pixels"
    return compare(
        f"MIMIC, {METHODS[name]}, {size}, {_BATCH} images",
        before=before,
        after=after,
        unit="runs/s",
        higher_is_better=True,
        warmup=1,
        equality=(
            "kept activations equal those computed anew (tests/repair/"
            "test_information.py)"
            if name == "mimic-information"
            else "slopes equal to 1e-9 in float64; in bfloat16 their cosine to float32 "
            "is above 0.97 (tests/repair/test_mimic.py)"
        ),
        forwards_per_image={
            "plain, GMAC of a run": _gmacs(plain),
            "ours, GMAC of a run": _gmacs(ours),
        },
    )


def _steps(*, leaks: bool) -> tuple[Side, Side]:
    name, side = ("tiny", 16) if leaks else ("resnet18", 32)
    images = noise_images(2 * _BATCH, size=side).images.float() / 255
    first, second = images.split(_BATCH)
    teacher = simclr(name, seed=1).backbone.eval()
    layers = stage_names(teacher)
    slow, fast = simclr(name).train(), simclr(name).train()
    adam = _adam(slow)

    def plain() -> None:
        loss = plain_loss(
            slow.backbone,
            slow.projector,
            teacher,
            (first, second),
            layers,
            [_WEIGHT] * len(layers),
            leak=_LEFT if leaks else 0,
        )
        adam.zero_grad()
        loss.backward()
        adam.step()

    runtime = Runtime()
    guide = Teacher(
        teacher,
        layers=layers,
        power=2,
        images=noise_images(2, size=side).images,
        runtime=runtime,
    )
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    laid = tuple(
        x.contiguous(memory_format=torch.channels_last) for x in (first, second)
    )
    fused = torch.optim.Adam(fast.parameters(), lr=1e-2, weight_decay=1e-6, fused=True)
    protocol = EncoderProtocol(
        epochs=1, batch_size=_BATCH, lr=1e-2, weight_decay=1e-6, clone_weight=1.0
    )

    def ours() -> None:
        loss, _ = lesson(
            fast,
            (laid[0], laid[1]),
            guide=guide,
            weights=dict.fromkeys(layers, _WEIGHT),
            protocol=protocol,
            dtype=runtime.compute_dtype(),
        )
        fused.zero_grad()
        loss.backward()
        fused.step()

    return plain, ours


def _phases() -> tuple[Side, Side]:
    data = noise_images(4 * _BATCH, size=16)
    net = simclr("tiny", seed=1).backbone.eval()
    layers = stage_names(net)
    settings = Estimation(epochs=_EPOCHS, hidden=128, batch_size=_BATCH)
    sizes = [16 * 256, 32 * 64, 64 * 16, 128 * 4]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critics = [
            nn.Sequential(
                nn.Linear(size + 128, 128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.ReLU(),
                nn.Linear(128, 1),
            )
            for size in sizes
        ]
    adams = [torch.optim.Adam(c.parameters(), lr=1e-3) for c in critics]

    def plain() -> None:
        images = data.images.float() / 255
        for layer, critic, adam in zip(layers, critics, adams, strict=True):
            for _ in range(_EPOCHS):
                plain_epoch(net, images, layer, critic, adam, batch_size=_BATCH)

    def ours() -> None:
        estimate_information(net, data, layers=layers, settings=settings)

    return plain, ours


def _adam(net: SimCLR) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-6)


def _seconds(side: Side) -> float:
    begin = time.perf_counter()
    side()
    return time.perf_counter() - begin


def _gmacs(side: Side) -> float:
    with FlopCounterMode(display=False) as counter:
        side()
    flops: int = counter.get_total_flops()
    return round(flops / 2e9, 3)
