"""Baselines of the purifiers that act while a network is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from torch import nn

from bezoar.data import ImageData
from bezoar.detect.pruning import Pruning, train_pruned
from bezoar.runtime import Runtime
from bezoar.train import RandomNoise, Training, train_with_friendly_noise

BASELINES = ("epic", "friends")
Trainer = Callable[[ImageData], nn.Module]

_RATES = (0.1, 0.2, 0.3)
_EVERY, _WARM_UP = 10, 5  # epochs


def while_training(
    names: Collection[str],
    *,
    build: Callable[[ImageData], nn.Module],
    settings: Training,
    seed: int,
    runtime: Runtime,
) -> dict[str, Trainer]:
    """Return the variants of EPIC and FRIENDS that are published.

    Args:
        names: Which of ``BASELINES`` are wanted; others are passed over.
        build: Makes a fresh network for a set.
        settings: The protocol of all trainings.
        seed: Seeds them.
        runtime: Where and how to run.

    Returns:
        For each variant what trains a network on a set. Trainings of at most 10 or 5
        epochs drop images before their last one, and warm up as long as they train.
    """

    def epic(subset_rate: float, data: ImageData) -> nn.Module:
        return train_pruned(
            build(data),
            data=data,
            pruning=Pruning(data.labels, subset_rate=subset_rate),
            start_epoch=min(_EVERY, settings.epochs - 1),
            every=_EVERY,
            settings=settings,
            seed=seed,
            runtime=runtime,
        )

    def friends(fresh: RandomNoise, data: ImageData) -> nn.Module:
        return train_with_friendly_noise(
            build(data),
            data=data,
            settings=settings,
            fresh=fresh,
            warm_up_epochs=min(_WARM_UP, settings.epochs),
            seed=seed,
            runtime=runtime,
        )

    found: dict[str, Trainer] = {}
    if "epic" in names:
        found |= {f"EPIC {rate}": partial(epic, rate) for rate in _RATES}
    if "friends" in names:
        found["FRIENDS, Bernoulli"] = partial(friends, RandomNoise())
        found["FRIENDS, Gaussian"] = partial(friends, RandomNoise(kind="gaussian"))
    return found
