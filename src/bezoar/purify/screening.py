"""What can be learnt from images, against what can be learnt from treated ones.

Where images were made unlearnable (Huang et al., ICLR 2021, arXiv:2101.04898) the
classes of held-out images are told far too well, by what was added. Once the images
are treated, by hard compression (Liu et al., ICML 2023, arXiv:2301.13838) or by D-VAE,
they are not. So the treated set is the control, and no clean images are needed.

Three probes, because each is blind to something: a small network, a linear rule on
the pixels of the fine detail, and one on how its neighbouring pixels go together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.purify.probes import PROBES, PROTOCOL, SIDE, middle, told_classes
from bezoar.purify.shortcut_squeezing import ShortcutSqueezing
from bezoar.results import Provenance, Screening, ScreeningStatus
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Int64

ALARM_GAP = 0.15
TOO_EASY = 0.9  # told as well as that without the detail, there is no room for a gap
MIN_IMAGES, MIN_PER_CLASS, MAX_IMAGES = 500, 20, 4000
_LINEAR = 2.0  # times the gap: by nature classes differ in texture more than in content


def screen_unlearnable(
    data: ImageData,
    *,
    max_images: int = MAX_IMAGES,
    alarm_gap: float | None = ALARM_GAP,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Screening:
    """Say whether a set looks made unlearnable, before hours are spent on it.

    Three probes learn the classes from the images as they are and from JPEG files of
    low quality of them, and are asked for the class of other images of the set. For
    2,000 images of 32x32 pixels that takes about half a minute on one core.

    Args:
        data: Labelled images, or a sample of them.
        max_images: Images to look at; of more, a seeded sample is taken.
        alarm_gap: Accuracy that the network has to lose for "found"; a linear rule
            has to lose twice as much. None makes no verdict.
        seed: Seeds sample, split and network.
        runtime: Where and how to run.

    Returns:
        The verdict with its figures and limits.

    Example:
        >>> from bezoar.data import noise_images
        >>> screen_unlearnable(noise_images(8)).status
        'not scoreable'
    """
    start = time.perf_counter()
    check_alarm(alarm_gap)
    sample = data.take(sample_rows(len(data), max_images=max_images, seed=seed))
    treated = sample
    if not too_few(sample):
        sample = replace(sample, images=middle(sample.images))
        quiet = Runtime(batch_size=runtime.batch_size)
        treated = ShortcutSqueezing().purify(sample, runtime=quiet).data
    told = compared(
        sample,
        treated,
        alarm_gap=alarm_gap,
        seeds=(seed,),
        settings={"max_images": max_images, "treatment": "JPEG at quality 10"},
        runtime=runtime,
    )
    seconds = time.perf_counter() - start
    return replace(told, provenance=replace(told.provenance, seconds=seconds))


def compared(
    given: ImageData,
    treated: ImageData,
    *,
    alarm_gap: float | None,
    seeds: Sequence[int],
    settings: Mapping[str, object],
    runtime: Runtime = Runtime(),
) -> Screening:
    """Let the probes learn from images as given and as treated, and compare.

    Args:
        given: The images as they were given.
        treated: The same images without their faint detail.
        alarm_gap: Accuracy that the network has to lose for "found"; a linear rule
            has to lose twice as much. None makes no verdict.
        seeds: Of splits and networks; accuracies are means over them.
        settings: How the images were treated, for the provenance.
        runtime: Where and how to run.

    Returns:
        The verdict with its figures and limits.
    """
    start = time.perf_counter()
    alarms = alarms_of(alarm_gap)
    told: list[dict[str, float]] = []
    reason = too_few(given)
    status: ScreeningStatus = "not scoreable"
    if not reason:
        for done, data in enumerate((given, treated), start=1):
            every = [told_classes(data, seed=seed, runtime=runtime) for seed in seeds]
            told.append({k: _mean([one[k] for one in every]) for k in PROBES})
            runtime.progress(Progress(stage="screen", done=done, total=2))
        status = status_of(*told, alarms=alarms)
    own, base = told or ({}, {})
    return Screening(
        status=status,
        summary=reason or _in_words(status, own, base, alarms),
        given=own,
        treated=base,
        alarms=alarms,
        num_images=len(given),
        health=() if reason else _limits(given),
        provenance=Provenance(
            method="screen-unlearnable",
            settings={**settings, "alarm_gap": alarm_gap},
            seed=seeds[0],
            seconds=time.perf_counter() - start,
            forwards_per_image=6.0 * PROTOCOL.epochs * len(seeds) if told else 0.0,
        ),
    )


def sample_rows(
    count: int, *, max_images: int = MAX_IMAGES, seed: int = 0
) -> Int64[Tensor, " m"]:
    """Return which images are looked at.

    Args:
        count: Images there are.
        max_images: Images to look at.
        seed: Seeds the choice.

    Returns:
        Places in order.
    """
    order = torch.randperm(count, generator=generator(seed, "screen.sample"))
    return order[:max_images].sort().values


def status_of(
    given: Mapping[str, float],
    treated: Mapping[str, float],
    *,
    alarms: Mapping[str, float],
) -> ScreeningStatus:
    """Return what the accuracies of the probes come to.

    Args:
        given: From the images as given, by probe.
        treated: From treated ones, by probe.
        alarms: The difference from which on a probe is an alarm; empty for no verdict.

    Returns:
        "found" from the first alarm on; else "nothing found", or "undecided" where the
        network tells treated images so well that there was no room for a difference.

    Example:
        >>> alarms = {"network": 0.15}
        >>> status_of({"network": 0.9}, {"network": 0.4}, alarms=alarms)
        'found'
        >>> status_of({"network": 0.97}, {"network": 0.95}, alarms=alarms)
        'undecided'
    """
    if not alarms:
        return "undecided"
    if any(given[k] - treated[k] >= gap for k, gap in alarms.items()):
        return "found"
    return "nothing found" if treated["network"] < TOO_EASY else "undecided"


def alarms_of(alarm_gap: float | None) -> dict[str, float]:
    """Return the difference from which on each probe is an alarm.

    Args:
        alarm_gap: That of the network; None for no verdict.

    Returns:
        Differences by probe, twice as much for the linear rules; empty for no verdict.
    """
    if alarm_gap is None:
        return {}
    linear = _LINEAR * alarm_gap
    return {"network": alarm_gap, "pixels": linear, "texture": linear}


def check_alarm(alarm_gap: float | None) -> None:
    """Check the setting that makes a verdict.

    Args:
        alarm_gap: A difference of accuracies, or None.

    Raises:
        InputError: If it is neither.
    """
    if alarm_gap is not None and not 0 < alarm_gap < 1 / _LINEAR:
        raise InputError(
            f"expected an alarm_gap between 0 and {1 / _LINEAR:g}, got {alarm_gap:g}; "
            "it is a difference of accuracies, None makes no verdict"
        )


def too_few(data: ImageData) -> str:
    """Return why a set cannot be looked at, or nothing.

    Args:
        data: The images.

    Returns:
        A sentence; empty if there are enough images with labels.
    """
    if not data.is_labelled:
        return "There are no labels, so noise that goes with them cannot be looked for."
    counts = torch.bincount(data.labels)
    counts = counts[counts > 0]
    enough = len(data) >= MIN_IMAGES and int(counts.min()) >= MIN_PER_CLASS
    if enough and len(counts) > 1:
        return ""
    return (
        f"Too few images to look for noise that goes with the labels: {len(data):,} of "
        f"{len(counts)} classes, {int(counts.min())} in the smallest; {MIN_IMAGES} of "
        f"2 classes or more with {MIN_PER_CLASS} each are needed."
    )


def _in_words(
    status: ScreeningStatus,
    own: Mapping[str, float],
    base: Mapping[str, float],
    alarms: Mapping[str, float],
) -> str:
    # The probe that is nearest to its alarm, or beyond it.
    probe = max(own, key=lambda k: (own[k] - base[k]) / alarms.get(k, 1.0))
    seen = (
        f"{PROBES[probe]} tells {own[probe]:.0%} of held-out images as given, "
        f"and {base[probe]:.0%} of treated ones"
    )
    return {
        "found": f"The set looks made unlearnable: {seen}.",
        "nothing found": f"No sign that the set was made unlearnable: {seen}.",
        "undecided": f"No verdict on whether the set was made unlearnable: {seen}.",
    }[status]


def _limits(data: ImageData) -> tuple[str, ...]:
    found = [
        "noise in a small part of the images, or that survives the treatment, may pass "
        "unseen; classes that differ in camera, format or sharpness may raise an alarm"
    ]
    if max(data.images.shape[2:]) > SIDE:
        found.append(f"only the middle {SIDE} pixels of the images were looked at")
    return tuple(found)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
