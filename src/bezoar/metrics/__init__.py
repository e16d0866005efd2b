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
from bezoar.metrics.encoders import (
    EncoderTask,
    EncoderTrigger,
    evaluate_encoder,
    evaluate_encoders,
    knowledge_recovery,
    paired_difference,
)
from bezoar.metrics.images import appearance, change_columns, drift, psnr, ssim
from bezoar.metrics.representation import represent
from bezoar.metrics.separability import (
    local_autocorrelation,
    ridge_probe,
    separability,
)
from bezoar.metrics.shortcuts import (
    Shortcut,
    ShortcutAudit,
    mean_mask,
    shortcut_audit,
)
from bezoar.metrics.similarities import (
    computing,
    image_vectors,
    lent,
    scoring_copy,
    similarities,
)
from bezoar.metrics.zero_shot import ZeroShot, zero_shot_classifier, zero_shot_head

__all__ = [
    "EncoderTask",
    "EncoderTrigger",
    "Shortcut",
    "ShortcutAudit",
    "ZeroShot",
    "appearance",
    "auroc",
    "average_precision",
    "bootstrap_auroc",
    "change_columns",
    "computing",
    "drift",
    "evaluate",
    "evaluate_encoder",
    "evaluate_encoders",
    "image_vectors",
    "knowledge_recovery",
    "leakage",
    "lent",
    "local_autocorrelation",
    "logits",
    "mean_mask",
    "paired_difference",
    "predict",
    "psnr",
    "purity",
    "represent",
    "ridge_probe",
    "scoring_copy",
    "separability",
    "shortcut_audit",
    "similarities",
    "ssim",
    "tpr_at_fpr",
    "zero_shot_classifier",
    "zero_shot_head",
]
