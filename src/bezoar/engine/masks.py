"""Masks of the most suspicious images of a source, for detectors that make masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from bezoar.engine.local import BlockSource, collect, sample_source
from bezoar.results import Detection
from bezoar.runtime import Runtime


def masked_worst(
    found: Detection,
    source: BlockSource,
    *,
    method: Any,
    model: nn.Module | None,
    image_size: tuple[int, int],
    seed: int,
    runtime: Runtime,
) -> Detection:
    """Return a detection with masks of its most suspicious images.

    Args:
        found: The detection.
        source: The images.
        method: The detector; its ``num_masks`` says how many, and one without keeps
            none.
        model: The model that it looked at.
        image_size: Height and width that images were resized to.
        seed: The seed of the detection.
        runtime: Where and how to run.

    Returns:
        The same detection with the masks; as it was where none are asked for.
    """
    num_masks = getattr(method, "num_masks", 0)
    if num_masks == 0:
        return found
    top = found.ranks.argsort()[:num_masks].tolist()
    images = collect(source, [found.ids[i] for i in top], image_size=image_size)
    sample = None
    if method.calibration_images > 0:
        sample = sample_source(
            source,
            method.calibration_images,
            image_size=image_size,
            seed=seed,
            runtime=runtime,
        )
    calibrated = replace(method, **found.provenance.settings)
    masks = calibrated.masks(
        images, model=model, sample=sample, seed=seed, runtime=runtime
    )
    return found.with_masks(masks, images.ids)
