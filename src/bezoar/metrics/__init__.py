"""Measures of detection and of classifiers, and rules that turn scores to verdicts."""

from bezoar.metrics.classification import evaluate, logits, predict
from bezoar.metrics.detection import (
    auroc,
    average_precision,
    bootstrap_auroc,
    leakage,
    purity,
    tpr_at_fpr,
)

__all__ = [
    "auroc",
    "average_precision",
    "bootstrap_auroc",
    "evaluate",
    "leakage",
    "logits",
    "predict",
    "purity",
    "tpr_at_fpr",
]
