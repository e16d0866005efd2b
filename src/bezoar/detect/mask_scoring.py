"""Masks for whole sets: kernels of one shape, and the weight that fits a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bezoar.data import ImageData, content_keys
from bezoar.detect.mask_distillation import (
    Background,
    MaskSettings,
    distill_masks,
    fill_colours,
    flat,
    other_images,
)
from bezoar.errors import DivergedError, UnscoreableError
from bezoar.models import check_model_output, default_layer, frozen_folded, tap
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, Int64, UInt8

LAST_MAP = "last feature map"
_KEPT = 0.6  # of the visible area by the median mask: measured, see the docs page
_VISIBLE = 0.1  # least change of a pixel that counts
_LENIENCE, _TRIALS = 0.2, 8
_CPU_KERNEL = 64  # images per kernel call on a CPU: one shape, whatever the batch size

_Outputs = Callable[[Tensor], Tensor]


def distilled(
    data: ImageData,
    model: nn.Module,
    *,
    settings: MaskSettings,
    layer: str | None,
    pool: ImageData | None,
    seed: int,
    runtime: Runtime,
) -> Iterator[tuple[Float[Tensor, "b h w"], Int64[Tensor, " b"]]]:
    """Learn the masks of a set, kernel by kernel.

    Kernels see one shape: the last one is filled up with copies, so that an image's
    mask depends neither on its company nor, on a CPU, on the batch size.

    Args:
        data: The images.
        model: Maps images in [0, 1] to logits; it is left as it was.
        settings: The numbers that define a mask.
        pool: Images that stand behind the masks; None for flat random colours.
        layer: Module whose output the masks keep, ``LAST_MAP``, or None for logits.
        seed: Seeds the colours, one stream per image content.
        runtime: Where and how to run.

    Yields:
        Masks in [0, 1] and predicted classes, on the CPU.

    Raises:
        DivergedError: If a mask is not finite.
    """
    probe = data.images[:2].float() / 255
    check_model_output(model, probe, len(data.class_names) or None)
    size = runtime.batch_size if runtime.device.type != "cpu" else _CPU_KERNEL
    shown = None
    if pool is not None:
        shown = pool.images.to(runtime.device).float() / 255
    with _outputs(model, probe, layer=layer, runtime=runtime) as (matched, logits):
        for start in range(0, len(data), size):
            stored = data.images[start : start + size]
            padded = _filled_up(stored, size)
            images = padded.to(runtime.device).float() / 255
            behind = _background(
                content_keys(padded), images, shown, steps=settings.steps, seed=seed
            )
            masks = distill_masks(images, behind, forward=matched, settings=settings)
            masks = masks[: len(stored)].cpu()
            if not masks.isfinite().all():
                raise DivergedError(
                    f"expected finite masks, got NaN or infinity after "
                    f"{settings.steps} steps in the batch from {data.ids[start]!r}; "
                    f"lower lr ({settings.lr})"
                )
            with torch.no_grad():
                classes = logits(images).argmax(1)
            yield masks, classes[: len(stored)].cpu()
            done = start + len(stored)
            runtime.progress(Progress(stage="distil", done=done, total=len(data)))


def _background(
    keys: Sequence[str],
    images: Tensor,
    pool: Tensor | None,
    *,
    steps: int,
    seed: int,
) -> Background:
    if pool is not None:
        return other_images(keys, steps=steps, pool=pool, seed=seed)
    channels = images.shape[1]
    fills = fill_colours(keys, steps=steps, channels=channels, seed=seed)
    return flat(fills.to(images.device))


def _filled_up(images: UInt8[Tensor, "b c h w"], size: int) -> UInt8[Tensor, "s c h w"]:
    last = images[-1:].expand(size - len(images), -1, -1, -1)
    return torch.cat([images, last])


@contextmanager
def _outputs(
    model: nn.Module, probe: Tensor, *, layer: str | None, runtime: Runtime
) -> Iterator[tuple[_Outputs, _Outputs]]:
    # Yields two functions of images: what the masks have to keep, and the logits.
    if layer == LAST_MAP:
        layer = default_layer(model, probe)
    copy = frozen_folded(
        model,
        device=runtime.device,
        dtype=runtime.compute_dtype(),
        images=probe,
        keep=() if layer is None else (layer,),
    )
    if layer is None:
        yield copy, copy
        return
    with tap(copy, layer) as watched:

        def features(images: Tensor) -> Tensor:
            copy(images)
            return watched.output

        yield features, copy


def target_share(images: UInt8[Tensor, "n c h w"]) -> float:
    """Return the share of the image that the median mask of a set should keep.

    A mask decides nothing where the image and what stands behind the mask are alike.
    Photographs differ in most of their pixels; digits on a black ground in half of
    them, and a mask of half of the image keeps a whole digit.

    Args:
        images: A sample of the set, as it stands behind the masks.

    Returns:
        0.6 of the pixels in which an image and the next one differ by more than 0.1,
        the mean over the channels; never below 0.05.

    Example:
        >>> halves = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        >>> halves[1, :, :2] = 255
        >>> round(target_share(halves), 3)
        0.3
    """
    values = images.float() / 255
    change = (values - values.roll(1, 0)).abs().mean(1)
    return max(0.05, _KEPT * (change > _VISIBLE).float().mean().item())


def calibrate_l1_weight(
    median_share: Callable[[float], float],
    *,
    target: float,
    start: float,
    report: Callable[[Progress], None],
) -> float:
    """Find the weight that leaves the median mask a wanted share of the image.

    The share falls as the weight rises: the weight is bracketed by factors of 3 and
    then bisected on a log scale. No poison labels are used.

    Args:
        median_share: Gives the median mask's share of the image at a weight.
        target: The share wanted; a fifth more or less will do.
        start: The first weight to try.
        report: Told about every trial.

    Returns:
        The first weight tried with a median share near the wanted one.

    Raises:
        UnscoreableError: If none is found.

    Example:
        >>> weight = calibrate_l1_weight(
        ...     lambda w: 1 / (1 + w / 1e-3),
        ...     target=0.3, start=0.01, report=lambda _: None)
        >>> round(weight, 4)
        0.0019
    """
    weight, share = start, math.nan
    least, most = target * (1 - _LENIENCE), target * (1 + _LENIENCE)
    low = high = None  # weights known to be too small, too large
    for trial in range(_TRIALS):
        share = median_share(weight)
        metrics = {"l1_weight": weight, "median_share": share}
        report(
            Progress(stage="calibrate", done=trial + 1, total=_TRIALS, metrics=metrics)
        )
        if least <= share <= most:
            report(Progress(stage="calibrate", done=_TRIALS, total=_TRIALS))
            return weight
        if share > target:
            low = weight
        else:
            high = weight
        if low is not None and high is not None:
            weight = math.sqrt(low * high)
        else:
            weight = weight * 3 if high is None else weight / 3
    raise UnscoreableError(
        f"expected an l1_weight that leaves the median mask {least:.0%} to {most:.0%} "
        f"of the image, got {share:.1%} at {weight:.2g} after {_TRIALS} trials; the "
        "model may be untrained, or not trained on these images"
    )
