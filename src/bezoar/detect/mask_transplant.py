"""A second look at an accused class: does the little that it needs move other images?

A trigger decides wherever it stands. What the model needs of an image by nature, a
stroke or an outline, decides together with the rest of it, and about as much in one
image of the class as in another. So the pixels that matter most in the most suspicious
images of a class are pasted on images of other classes, beside those of its least
suspicious ones
(the test of SentiNet, Chou et al. 2018, https://arxiv.org/abs/1812.00292, here with
learned masks, at one area for all, and for classes instead of single images).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bezoar.models import frozen_folded
from bezoar.results import Detection
from bezoar.runtime import Runtime
from bezoar.shapes import Bool, Float, Int64, UInt8

AREA = 0.03  # of the image: at a tenth, a natural object turns other images as well
PLAIN = 0.5  # where half turn, it is a trigger, whatever the controls do
_MOST, _FEWEST = 24, 12  # suspects of a class; classes have 50 images at least
_VICTIMS, _FEWEST_VICTIMS = 24, 4
_KERNEL = 64  # images per forward pass: one shape, whatever the batch size


@dataclass(frozen=True, kw_only=True)
class Accused:
    """The images that speak for or against a class.

    Attributes:
        suspects: Rows of its most suspicious images, which should carry the trigger.
        controls: As many rows of images that are less suspicious than three quarters
            of the class; they tell what is natural for it.
    """

    suspects: tuple[int, ...]
    controls: tuple[int, ...]


def accused_classes(detection: Detection) -> dict[int, Accused]:
    """Return the images of each class that stands out, to look at again.

    Args:
        detection: A detection with evidence by class.

    Returns:
        For each class as many suspects as it seems to have too many of, but 12 to 24.
    """
    if detection.verdict.rule != "class_scan":
        return {}
    labels = labels_of(detection)
    accused = {}
    for evidence in detection.verdict.classes:
        if evidence.status != "nothing found":
            own = (labels == evidence.label).nonzero().flatten()
            order = detection.scores[own].argsort(descending=True, stable=True)
            rows = own[order].tolist()
            excess = round(evidence.excess * evidence.num_images)
            size = min(_MOST, max(_FEWEST, excess))
            late = min(3 * len(rows) // 4, len(rows) - size)
            accused[evidence.label] = Accused(
                suspects=tuple(rows[:size]), controls=tuple(rows[late : late + size])
            )
    return accused


def labels_of(detection: Detection) -> Int64[Tensor, " n"]:
    """Return the classes that a verdict was made by.

    Args:
        detection: Scores with the column ``predicted``.

    Returns:
        The labels; the model's predictions where there are none.
    """
    if detection.class_names:
        return detection.labels
    return detection.columns["predicted"].long()


def strongest_pixels(
    masks: Float[Tensor, "k h w"], *, area: float = AREA
) -> Bool[Tensor, "k h w"]:
    """Return where each mask is highest, over the same area for all.

    Args:
        masks: Masks in [0, 1]; 1 keeps a pixel.
        area: Share of the pixels to mark, at least one pixel.

    Returns:
        True for exactly that many pixels of each mask.

    Example:
        >>> strongest_pixels(torch.tensor([[[0.1, 0.9], [0.2, 0.3]]]), area=0.25)
        tensor([[[False,  True],
                 [False, False]]])
    """
    flat = masks.flatten(1)
    size = max(1, round(area * flat.shape[1]))
    top = flat.argsort(dim=1, descending=True, stable=True)[:, :size]
    marked = torch.zeros_like(flat, dtype=torch.bool).scatter(1, top, value=True)
    return marked.view_as(masks)


def transplant_rate(
    images: UInt8[Tensor, "k c h w"],
    kept: Bool[Tensor, "k h w"],
    others: UInt8[Tensor, "n c h w"],
    *,
    label: int,
    model: nn.Module,
    runtime: Runtime,
) -> float | None:
    """Return how often pixels of some images turn others into a class.

    Args:
        images: Suspicious images of one class.
        kept: The pixels to paste.
        others: Images to paste on; those that the model takes for the class already
            are left out, and of the rest the first 24 are used.
        label: The class.
        model: Maps images in [0, 1] to logits; it is left as it was.
        runtime: Where and how to run.

    Returns:
        Share of the ``k * n`` pasted images that the model takes for the class; None
        with fewer than 4 images to paste on.
    """
    copy = frozen_folded(
        model,
        device=runtime.device,
        dtype=runtime.compute_dtype(),
        images=images[:2].float() / 255,
    )
    others = others[_classes(others, copy, runtime) != label][:_VICTIMS]
    if len(others) < _FEWEST_VICTIMS:
        return None
    pasted = torch.where(kept[:, None, None], images[:, None], others[None])
    turned = _classes(pasted.flatten(0, 1), copy, runtime) == label
    return turned.float().mean().item()


def acquitted_classes(
    rates: dict[int, tuple[float, float]], *, min_excess: float
) -> list[int]:
    """Return the classes whose suspects do not act as if they had a trigger.

    Args:
        rates: By class the transplant rates of its suspects and of its controls.
        min_excess: By how much the first has to be larger to count as a trigger. A
            rate of a half does so by itself: where half of a class is poison, some of
            it is among the controls.

    Returns:
        The labels.

    Example:
        >>> acquitted_classes({0: (0.9, 0.8), 3: (0.33, 0.30)}, min_excess=0.2)
        [3]
    """
    return [
        label
        for label, (suspects, controls) in rates.items()
        if suspects < PLAIN and suspects - controls < min_excess
    ]


def with_rates(
    detection: Detection, rates: dict[int, tuple[float, float]]
) -> Detection:
    """Return a detection with the rates among its evidence.

    Args:
        detection: The verdict to add to.
        rates: By class the transplant rates of its suspects and of its controls.

    Returns:
        The same verdict, with a sentence on what was seen.
    """
    verdict = detection.verdict
    unknown = (None, None)
    classes = tuple(
        replace(
            row,
            transplant_rate=rates.get(row.label, unknown)[0],
            control_rate=rates.get(row.label, unknown)[1],
        )
        for row in verdict.classes
    )
    summary, target = verdict.summary, verdict.target_class
    if target in rates:
        suspects, controls = rates[target]
        seen = (
            f"Pasted on other images, the {AREA:.0%} of the pixels that count most "
            f"turn {suspects:.0%} of them into the class; those of its least "
            f"suspicious images turn {controls:.0%}."
        )
        summary = f"{summary} {seen}"
    verdict = replace(verdict, classes=classes, summary=summary)
    return replace(detection, verdict=verdict)


def _classes(
    images: UInt8[Tensor, "n c h w"], model: nn.Module, runtime: Runtime
) -> Int64[Tensor, " n"]:
    predicted = []
    with torch.no_grad():
        for part in images.split(_KERNEL):
            filled = torch.cat(
                [part, part[-1:].expand(_KERNEL - len(part), -1, -1, -1)]
            )
            logits = model(filled.to(runtime.device).float() / 255)
            predicted.append(logits[: len(part)].argmax(1).cpu())
    return torch.cat(predicted)
