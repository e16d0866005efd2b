"""Captions that tell the truth about images: class, brightness and colour.

A miniature of an image-text model has to learn classes, and a contrastive loss is
content with whatever tells captions apart most easily; so there are two colours or one
word of brightness beside the class, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.data.images import ImageData, to_uint8
from bezoar.data.pairs import PairData
from bezoar.data.samples import digit_images
from bezoar.errors import InputError
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

DIGIT_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
DIGIT_TEMPLATES = (
    "a {f} {c} on a {g} background",
    "the digit {c} in {f} over {g}",
    "a handwritten {c}, {f} on {g}",
    "{f} {c} drawn on {g} paper",
    "on {g} there is a {f} {c}",
    "this is a {c} written in {f} ink on {g}",
)
"""Of a digit: {c} its name, {f} its colour, {g} that of the background."""

CIFAR_TEMPLATES = (
    "a {b} photo of a {c}",
    "a {b} picture of one {c}",
    "the {c} in a {b} image",
    "a {c} seen in a {b} scene",
    "a {b} snapshot showing a {c}",
    "this {b} photograph shows the {c}",
    "a small {b} photo with a {c}",
    "one {c}, a {b} shot",
)
"""Of a photograph: {c} its class, {b} "dark" or "bright"."""

_BRIGHTNESS = ("dark", "bright")
_COLOURS = (("black", "white"), ("white", "black"))  # ink and paper


def digit_prompts() -> tuple[tuple[str, ...], ...]:
    """Return the prompts of each digit: every template in both pairs of colours.

    Returns:
        Twelve texts for each of the ten classes.
    """
    return tuple(
        tuple(t.format(c=c, f=f, g=g) for t in DIGIT_TEMPLATES for f, g in _COLOURS)
        for c in DIGIT_NAMES
    )


def photo_prompts(class_names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the prompts of each class: every template, dark and bright.

    Args:
        class_names: Names as they stand in the captions.

    Returns:
        Sixteen texts for each class.

    Example:
        >>> photo_prompts(["cat"])[0][:2]
        ('a dark photo of a cat', 'a bright photo of a cat')
    """
    return tuple(
        tuple(t.format(c=c, b=b) for t in CIFAR_TEMPLATES for b in _BRIGHTNESS)
        for c in class_names
    )


def describe_photos(
    data: ImageData, *, middle: float | None = None, seed: int = 0
) -> PairData:
    """Return photographs with a caption of class and brightness each.

    Args:
        data: Labelled images.
        middle: Mean grey level from which on an image is called bright; None takes
            the median of these images. Sets that belong together need one value.
        seed: Seeds the choice of the template for each image.

    Returns:
        The pairs.

    Raises:
        InputError: If the images have no labels.
    """
    if not data.is_labelled:
        raise InputError(
            "expected labelled images to describe, got none with a label; give a set "
            "of class folders or with a label column"
        )
    levels = brightness(data)
    middle = levels.median().item() if middle is None else middle
    captions = []
    for image_id, label, level in zip(
        data.ids, data.labels.tolist(), levels.tolist(), strict=True
    ):
        template = _pick(CIFAR_TEMPLATES, seed, image_id)
        word = _BRIGHTNESS[level >= middle]
        captions.append(template.format(c=data.class_names[label], b=word))
    return PairData(
        images=data.images,
        captions=tuple(captions),
        ids=data.ids,
        labels=data.labels,
        class_names=data.class_names,
    )


def brightness(data: ImageData) -> Float[Tensor, " n"]:
    """Return the mean grey level of each image, from 0 to 255.

    Args:
        data: The images.

    Returns:
        One level per image.
    """
    return data.images.flatten(1).float().mean(1)


def digit_pairs(
    part: str, *, num_pairs: int, seed: int = 0, resolution: int = 24
) -> PairData:
    """Return scikit-learn's digits with captions, placed and coloured anew.

    Each is enlarged to 16x16 and placed at a random offset on a 24x24 square, black on
    white or white on black, with Gaussian noise of 8 grey levels. The originals are
    shuffled once for all seeds: the first 700 are for "reference", the next 700 for
    "victim", the others for "test", so that no two parts share one.

    Args:
        part: "reference", "victim" or "test".
        num_pairs: How many; originals are used several times, placed otherwise.
        seed: Seeds places, colours, noise and captions.
        resolution: Height and width in pixels, at least 24.

    Returns:
        The pairs, with ten classes.

    Raises:
        InputError: If there is no such part, or the images would be too small.

    Example:
        >>> pairs = digit_pairs("victim", num_pairs=3)
        >>> pairs.images.shape, pairs.class_names[:2]
        (torch.Size([3, 3, 24, 24]), ('zero', 'one'))
    """
    parts = {"reference": (0, 700), "victim": (700, 1400), "test": (1400, 1797)}
    if part not in parts or resolution < 24:
        raise InputError(
            f"expected a part of {', '.join(parts)} and a resolution of at least 24, "
            f"got {part!r} and {resolution}; correct them"
        )
    digits = digit_images(size=16)
    first, last = parts[part]
    pool = torch.randperm(len(digits), generator=generator(0, "digit-parts"))
    stream = generator(seed, "digit-pairs", part)
    picked = pool[first:last][
        torch.randint(0, last - first, (num_pairs,), generator=stream)
    ]
    inverted = torch.rand(num_pairs, generator=stream) < 0.5  # black on white
    images = _placed(digits.images[picked], inverted, stream, resolution=resolution)
    labels = digits.labels[picked]
    ids = tuple(f"{part}/{seed}/{i:05d}" for i in range(num_pairs))
    captions = []
    for image_id, label, is_black in zip(
        ids, labels.tolist(), inverted.tolist(), strict=True
    ):
        ink, paper = _COLOURS[not is_black]
        template = _pick(DIGIT_TEMPLATES, seed, image_id)
        captions.append(template.format(c=DIGIT_NAMES[label], f=ink, g=paper))
    return PairData(
        images=images,
        captions=tuple(captions),
        ids=ids,
        labels=labels,
        class_names=DIGIT_NAMES,
    )


def mix_up_captions(data: PairData, *, rate: float, seed: int = 0) -> PairData:
    """Return pairs of which some have the caption of another class: web noise.

    Args:
        data: Labelled pairs; they stay as they are.
        rate: Share of the pairs that get a wrong caption, from 0 to 1.
        seed: Seeds the choice.

    Returns:
        The pairs; labels stay true.

    Raises:
        InputError: If there are no labels or only one class.
    """
    if len(data.labels.unique()) < 2:
        raise InputError(
            "expected pairs of at least two classes to mix up, got labels of "
            f"{len(data.labels.unique())}; give labelled pairs"
        )
    stream = generator(seed, "wrong-captions")
    order = torch.randperm(len(data), generator=stream)
    captions = list(data.captions)
    for row in order[: round(rate * len(data))].tolist():
        others = (data.labels != data.labels[row]).nonzero().flatten()
        other = others[torch.randint(0, len(others), (), generator=stream)]
        captions[row] = data.captions[int(other)]
    return replace(data, captions=tuple(captions))


def _pick(templates: Sequence[str], seed: int, image_id: str) -> str:
    stream = generator(seed, "caption", image_id)
    return templates[int(torch.randint(0, len(templates), (), generator=stream))]


def _placed(
    digits: Tensor, inverted: Tensor, stream: torch.Generator, *, resolution: int
) -> Tensor:
    count, room = len(digits), resolution - 16
    low, high = round(room / 4), room - round(room / 4)  # 2 to 6 on 24 pixels
    shifts = torch.randint(low, high + 1, (count, 2), generator=stream)
    padded = functional.pad(digits.float() / 255, (room,) * 4)
    rows = (room - shifts[:, :1]) + torch.arange(resolution)
    columns = (room - shifts[:, 1:]) + torch.arange(resolution)
    batch: Int64[Tensor, "n 1 1"] = torch.arange(count)[:, None, None]
    placed = padded[:, 0][batch, rows[:, :, None], columns[:, None, :]][:, None]
    placed = torch.where(inverted[:, None, None, None], 1 - placed, placed)
    noise = torch.randn(placed.shape, generator=stream) * 8 / 255
    return to_uint8(placed + noise).expand(-1, 3, -1, -1).contiguous()
