"""From mask sizes to a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from bezoar.errors import InputError
from bezoar.metrics.thresholds import (
    Decision,
    by_reference,
    by_review,
    by_sigmas,
    can_scan_classes,
    class_scan,
)
from bezoar.results import Detection, Scores, Verdict
from bezoar.shapes import Float

Threshold = Literal["auto", "reference", "class_scan", "sigmas", "review", "none"]

_UNSCOREABLE, _COLLAPSING, _SATURATED = 0.01, 0.10, 0.85
_NEAR_FLOOR = 1.5  # times the mask that nothing holds up
_SCORE_SETTINGS = (
    "fill",
    "match",
    "steps",
    "lr",
    "l1_weight",
    "tv_weight",
    "betas",
    "layer",
    "mask_scale",
)


@runtime_checkable
class _Rules(Protocol):
    """The fields of the method that decide."""

    @property
    def threshold(self) -> Threshold: ...
    @property
    def l1_weight(self) -> float | str: ...
    @property
    def match(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def sigmas(self) -> float: ...
    @property
    def false_discovery_rate(self) -> float: ...
    @property
    def review_rate(self) -> float: ...


def health_of(share: Float[Tensor, " n"], method: _Rules) -> tuple[str, ...]:
    """Return what is wrong with the masks as a whole.

    Args:
        share: Mask sizes as shares of the image.
        method: The settings that they were made with.

    Returns:
        Remarks with the weight to try; empty when the masks are healthy.
    """
    median = share.median().item()
    weight = method.l1_weight if isinstance(method.l1_weight, float | int) else 0.01
    if median < _COLLAPSING:
        gone = median < _vanished(method)
        state = "not scoreable" if gone else "collapsing"
        advice = f'lower l1_weight to {weight / 3:.2g}, or set it to "auto"'
    elif median > _SATURATED:
        state, advice = "saturated", f'raise l1_weight to {weight * 3:.2g}, or "auto"'
    else:
        return ()
    return (
        f"{state}: the median mask covers {median:.1%} of the image where a third "
        f"to a half separates best; {advice}",
    )


def _vanished(method: _Rules) -> float:
    """Return the median share below which masks say nothing.

    A mask that the model does not hold up loses ``lr`` a step in theta, which starts
    at 1: after few steps it is not yet small, but no image's mask can be smaller.

    Args:
        method: The settings.

    Returns:
        A share of the image.
    """
    lowest = 1 / (1 + math.exp(min(2 * (method.lr * method.steps - 1), 700)))
    # Masks of a run too short to reach half are told apart by nothing else.
    return max(_UNSCOREABLE, _NEAR_FLOOR * lowest if lowest < 0.5 else 0.0)


def judge(
    scores: Scores,
    *,
    class_names: tuple[str, ...],
    reference: Detection | None,
    method: _Rules,
    acquitted: Collection[int] = (),
) -> tuple[Verdict, Decision, tuple[str, ...]]:
    """Apply a threshold rule to mask norms.

    Args:
        scores: The raw columns of all images.
        class_names: Names by class index; empty without labels.
        reference: Scores of clean images under the same settings, or None.
        method: The rule and its rates.
        acquitted: Classes not to accuse, whatever their scores.

    Returns:
        The verdict, the decision for each image, and the reason for each flagged one.
    """
    norm, share = scores.columns["mask_norm"], scores.columns["mask_share"]
    labels = scores.labels if class_names else scores.columns["predicted"].long()
    rule = _rule(method.threshold, labels, reference=reference)
    if share.median() < _vanished(method):
        decision = _nothing("not scoreable", size=len(norm))
    elif rule == "class_scan":
        # Masks are skewed to the right when probabilities are kept: their logarithm
        # is compared. With logits they are not, and a logarithm would skew them.
        compared = norm.log() if method.match == "probabilities" else norm
        decision = class_scan(
            compared,
            labels,
            false_discovery_rate=method.false_discovery_rate,
            acquitted=acquitted,
        )
    elif rule == "reference":
        assert reference is not None
        decision = by_reference(
            norm,
            reference.columns["mask_norm"],
            false_discovery_rate=method.false_discovery_rate,
        )
    elif rule == "sigmas":
        known = None if reference is None else reference.columns["mask_norm"]
        decision = by_sigmas(norm, known, sigmas=method.sigmas)
    elif rule == "review":
        decision = by_review(norm, review_rate=method.review_rate)
    else:
        decision = _nothing("ranking", size=len(norm))
    verdict = Verdict(
        status=decision.status,
        rule=rule,
        summary=_summary(decision, rule, class_names),
        num_flagged=int(decision.flagged.sum()),
        expected_false_alarms=decision.expected_false_alarms,
        poison_rate=decision.poison_rate,
        poison_rate_interval=decision.poison_rate_interval,
        target_class=decision.target_class,
        classes=decision.classes,
        threshold=decision.threshold,
    )
    return verdict, decision, _reasons(decision, share, labels, class_names)


def check_reference(
    reference: Detection, *, settings: dict[str, object], image_area: float
) -> None:
    """Refuse a reference whose scores are not comparable.

    Args:
        reference: Scores of clean images.
        settings: The settings in force.
        image_area: Pixels of a mask.

    Raises:
        InputError: If a setting that scores depend on differs.
    """
    theirs = {**reference.provenance.settings}
    columns = reference.columns
    if "mask_norm" not in columns or "mask_share" not in columns:
        raise InputError(
            "expected a reference made by cognitive-distillation, got one by "
            f"{reference.provenance.method}; score the clean images with this method"
        )
    area = (columns["mask_norm"].sum() / columns["mask_share"].sum()).item()
    ours = {name: settings[name] for name in _SCORE_SETTINGS}
    for name, value in ours.items():
        given = theirs.get(name)
        if _plain(given) != _plain(value):
            raise InputError(
                f"expected a reference with {name} {value}, got one with {given}; "
                "score the clean images again with these settings"
            )
    if abs(area - image_area) > 0.5:
        raise InputError(
            f"expected a reference of masks with {image_area:.0f} pixels, got "
            f"{area:.0f}; score clean images of the same size"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _rule(
    threshold: Threshold, labels: Tensor, *, reference: Detection | None
) -> Threshold:
    if threshold == "reference" and reference is None:
        raise InputError(
            'expected a reference for the threshold "reference", got none; give the '
            'detection of clean images, or take "class_scan"'
        )
    if threshold == "class_scan" and not can_scan_classes(labels):
        raise InputError(
            "expected at least 5 labels with at least 50 images each for the threshold "
            '"class_scan", got fewer; take "review" or give a reference'
        )
    if threshold != "auto":
        return threshold
    if reference is not None:
        return "reference"
    return "class_scan" if can_scan_classes(labels) else "none"


def _nothing(status: Literal["not scoreable", "ranking"], *, size: int) -> Decision:
    return Decision(
        status=status,
        flagged=torch.zeros(size, dtype=torch.bool),
        p_values=None,
        expected_false_alarms=0.0,
    )


def _name(label: int, class_names: tuple[str, ...]) -> str:
    return repr(class_names[label]) if label < len(class_names) else str(label)


def _summary(decision: Decision, rule: str, class_names: tuple[str, ...]) -> str:
    flagged, total = int(decision.flagged.sum()), len(decision.flagged)
    target = decision.target_class
    where = "" if target is None else f" in class {_name(target, class_names)}"
    if decision.status == "found" and not flagged:
        return (
            f"Poison seems to be{where}, about {decision.poison_rate or 0:.1%} of all "
            "images, but no single image stands out enough to be flagged. Look at the "
            "images of the class that rank first."
        )
    if decision.status == "found":
        alarms = f"{decision.expected_false_alarms:.0f} of them"
        text = (
            f"{flagged} of {total} images look poisoned: the model needs unusually "
            f"little of them{where}. Expect about {alarms} to be innocent."
        )
        if rule == "class_scan":
            text = text[:-1] + ", up to a third where poison is faint."
        return text
    return {
        "look": f"Weak signs of poison{where}; nothing was flagged. Look at the images "
        "that rank first, or score clean images as a reference.",
        "nothing found": f"Nothing found in {total} images. Under 2 % of poison, or "
        "poison that spreads evenly over the classes, would not be seen by this rule.",
        "not scoreable": "The masks vanished, so that the scores mean nothing; no "
        "verdict was made.",
        "ranking": "Images are ranked; no verdict was made, for the rule "
        f"{rule!r} makes none"
        + (" (fewer than 5 classes of 50 images)." if rule == "none" else "."),
    }[decision.status]


def _reasons(
    decision: Decision, share: Tensor, labels: Tensor, class_names: tuple[str, ...]
) -> tuple[str, ...]:
    medians = {
        c: share[labels == c].median().item()
        for c in labels[decision.flagged].unique().tolist()
    }
    reasons = [""] * len(share)
    for i in decision.flagged.nonzero().flatten().tolist():
        label = int(labels[i])
        text = (
            f"the model needs {share[i].item():.0%} of this image, half of class "
            f"{_name(label, class_names)} needs more than {medians[label]:.0%}"
        )
        if decision.p_values is not None:
            text += f"; p = {decision.p_values[i].item():.2g}"
        reasons[i] = text
    return tuple(reasons)
