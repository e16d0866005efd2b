"""Methods by the name that the command line and the benchmark use."""

from __future__ import annotations

from typing import Any

from bezoar.attacks import ATTACKS, UNLEARNABLE
from bezoar.detect import (
    ActivationClustering,
    CognitiveDistillation,
    EncoderInversion,
    Epic,
    LocalDensity,
    LossIsolation,
    NeighborOutlier,
    PairSimilarity,
    ShortcutTransplant,
    SpectralSignatures,
    Strip,
)
from bezoar.engine import Detector, Purifier
from bezoar.purify import (
    DVAE,
    Chain,
    EnergyFilter,
    PureDDPM,
    PureEBM,
    ShortcutSqueezing,
)
from bezoar.repair import (
    BCU,
    MIMIC,
    UBT,
    CleanCLIP,
    Distillation,
    EncoderFineTuning,
    LipschitzPruning,
    PairFineTuning,
    Retraining,
    Unlearning,
)

DETECTORS: dict[str, type[Detector]] = {
    "cognitive-distillation": CognitiveDistillation,
    "activation-clustering": ActivationClustering,
    "spectral-signatures": SpectralSignatures,
    "strip": Strip,
    "loss-isolation": LossIsolation,
    "neighbor-outlier": NeighborOutlier,
    "epic": Epic,
}
"""Methods of ``bezoar detect``; the first is the default."""

PURIFIERS: dict[str, type[Purifier]] = {
    "shortcut-squeezing": ShortcutSqueezing,
    "pure-ebm": PureEBM,
    "pure-ddpm": PureDDPM,
    "chain": Chain,
    "energy-filter": EnergyFilter,
    "dvae": DVAE,
}
"""Methods of ``bezoar purify``; the first is the default."""

ALIASES: dict[str, str] = {
    "cd": "cognitive-distillation",
    "ac": "activation-clustering",
    "ss": "spectral-signatures",
    "li": "loss-isolation",
    "no": "neighbor-outlier",
}
"""Short names of detectors."""

ENCODER_REPAIRS: dict[str, type[Any]] = {
    "mimic": MIMIC,
    "distillation": Distillation,
    "encoder-fine-tuning": EncoderFineTuning,
    "lipschitz-pruning": LipschitzPruning,
    "bcu": BCU,
}
"""Repairs of image encoders, from clean images without labels."""

REPAIRS: dict[str, type[Any]] = {
    "unlearning": Unlearning,
    "retraining": Retraining,
    **ENCODER_REPAIRS,
}
"""Methods of ``bezoar repair``; the first is the default."""

AFTER_PURIFYING: dict[str, type[Any]] = {"shortcut-transplant": ShortcutTransplant}
"""Detectors that read what a purifier took out; in Python alone."""

PAIR_REPAIRS: dict[str, type[Any]] = {
    "ubt": UBT,
    "clean-clip": CleanCLIP,
    "pair-fine-tuning": PairFineTuning,
}
"""Repairs of image-text models, from pairs; the first is the default."""

PAIR_DETECTORS: dict[str, type[Any]] = {
    "pair-similarity": PairSimilarity,
    "local-density": LocalDensity,
}
"""Detectors of suspicious pairs; the first is the default."""

DIAGNOSES: dict[str, type[Any]] = {"encoder-inversion": EncoderInversion}
"""Methods that judge an encoder; the first is that of ``bezoar detect --encoder``."""

METHODS: dict[str, type] = {
    **DETECTORS,
    **PURIFIERS,
    **REPAIRS,
    **PAIR_REPAIRS,
    **PAIR_DETECTORS,
    **AFTER_PURIFYING,
    **DIAGNOSES,
}
"""Every method that finds or removes poison; each has a page in the docs."""

__all__ = [
    "AFTER_PURIFYING",
    "ALIASES",
    "ATTACKS",
    "DETECTORS",
    "DIAGNOSES",
    "ENCODER_REPAIRS",
    "METHODS",
    "PAIR_DETECTORS",
    "PAIR_REPAIRS",
    "PURIFIERS",
    "REPAIRS",
    "UNLEARNABLE",
    "name_of",
    "presets",
]


def name_of(method: object) -> str:
    """Return the name that a method or an attack has on the command line.

    Args:
        method: Its settings.

    Returns:
        The name.

    Example:
        >>> name_of(CognitiveDistillation(steps=30))
        'cognitive-distillation'
    """
    every: dict[str, type] = {**METHODS, **ATTACKS, **UNLEARNABLE}
    return next(name for name, cls in every.items() if type(method) is cls)


def presets(method: type) -> dict[str, str]:
    """Return the named settings of a method: its class methods without arguments.

    Args:
        method: The method's class.

    Returns:
        The name of the class method by the name on the command line.

    Example:
        >>> presets(CognitiveDistillation)["official-code"]
        'official_code'
    """
    return {
        name.replace("_", "-"): name
        for name, value in vars(method).items()
        if isinstance(value, classmethod) and not name.startswith("_")
    }
