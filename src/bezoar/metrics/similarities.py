"""How similar images and their captions are under a model, in one pass."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.data import PairData
from bezoar.models import DualEncoder, embed_captions, frozen_folded
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, UInt8

_IN_CACHE = 128  # images at a time on a CPU: the maps of more leave its cache


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
    network = scoring_copy(model, data.images, runtime=runtime)
    seen = image_vectors(network, data, stage=stage, runtime=runtime)
    with computing(runtime):
        return (seen * embed_captions(network, data.captions)).sum(1)


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
    network = scoring_copy(model, data.images, runtime=runtime)
    parts, done = list[Tensor](), 0
    size = runtime.batch_size
    if runtime.device.type == "cpu":
        size = min(size, _IN_CACHE)
    for images in data.images.split(runtime.batch_size):
        with computing(runtime), torch.no_grad():
            for part in images.split(size):
                shown = part.to(runtime.device)
                shown = shown.contiguous(memory_format=torch.channels_last)
                parts.append(network.encode_images(shown.float() / 255).cpu())
        done += len(images)
        runtime.progress(Progress(stage=stage, done=done, total=len(data)))
    return torch.cat(parts)


class _ImageTower(nn.Module):
    """The image side of a model, as a module from images to vectors."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors of images in [0, 1]."""
        return self.model.encode_images(images)


def scoring_copy(
    model: DualEncoder, images: UInt8[Tensor, "n c h w"], *, runtime: Runtime
) -> DualEncoder:
    """Return a copy of a model that scores with less work, and learns no more.

    It is on the device, in eval mode, without gradients, and its image tower's batch
    norms are folded. Scoring block by block, make it once: what it is given is given
    back where it is such a copy already.

    Args:
        model: The caller's model; it is left as it was.
        images: Some images, to check the folding with.
        runtime: Where to run.

    Returns:
        The copy.
    """
    has_norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if not has_norms:
        return model if _is_ready(model, runtime) else lent(model, runtime)
    tower = frozen_folded(
        _ImageTower(model),
        device=runtime.device,
        dtype=torch.float32,  # ``computing`` says what it computes in
        images=images[torch.arange(2) % len(images)].float() / 255,
    )
    copied = tower.model
    assert isinstance(copied, DualEncoder)
    return copied


def _is_ready(model: DualEncoder, runtime: Runtime) -> bool:
    wanted = runtime.device
    return not model.training and all(
        not weight.requires_grad
        and weight.device.type == wanted.type
        and wanted.index in (None, weight.device.index)
        for weight in model.parameters()
    )


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
