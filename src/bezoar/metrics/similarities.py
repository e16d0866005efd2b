"""How similar images and their captions are under a model, in one pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.models import DualEncoder, embed_captions, embed_images
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float


def similarities(
    model: DualEncoder,
    data: PairData,
    *,
    stage: str = "score",
    runtime: Runtime = Runtime(),
) -> Float[Tensor, " n"]:
    """Return the cosine of each image and its caption.

    Each different caption is encoded once, cut to the longest of its batch.

    Args:
        model: It is copied to the device and left as it was.
        data: The pairs.
        stage: What the progress is called.
        runtime: Where and how to run.

    Returns:
        Cosines in [-1, 1] on the CPU.
    """
    seen = image_vectors(model, data, stage=stage, runtime=runtime)
    with computing(runtime):
        return (seen * embed_captions(lent(model, runtime), data.captions)).sum(1)


def image_vectors(
    model: DualEncoder,
    data: PairData,
    *,
    stage: str = "embed",
    runtime: Runtime = Runtime(),
) -> Float[Tensor, "n e"]:
    """Return unit vectors of the images.

    Args:
        model: It is copied to the device and left as it was.
        data: The pairs; the captions are not used.
        stage: What the progress is called.
        runtime: Where and how to run.

    Returns:
        Unit vectors on the CPU.
    """
    network, parts, done = lent(model, runtime), list[Tensor](), 0
    for images in data.images.split(runtime.batch_size):
        with computing(runtime):
            parts.append(embed_images(network, images, batch_size=len(images)))
        done += len(images)
        runtime.progress(Progress(stage=stage, done=done, total=len(data)))
    return torch.cat(parts)


def lent(model: DualEncoder, runtime: Runtime) -> DualEncoder:
    """Return a copy of a model on the device, in eval mode, without gradients.

    Args:
        model: The caller's model; it is left as it was.
        runtime: Where to run.

    Returns:
        The copy.
    """
    return copy.deepcopy(model).to(runtime.device).eval().requires_grad_(False)


def computing(runtime: Runtime) -> torch.autocast:
    """Return the context in which networks compute in the type that was asked for.

    Args:
        runtime: Where and how to run.

    Returns:
        A context that does nothing for float32.
    """
    dtype = runtime.compute_dtype()
    half = dtype != torch.float32
    return torch.autocast(runtime.device.type, dtype, enabled=half)
