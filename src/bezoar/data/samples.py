"""Small made-up data for tests and documentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.data.images import ImageData, to_uint8
from bezoar.data.pairs import PairData
from bezoar.runtime import generator

SHAPES = ("circle", "square", "triangle", "cross")
_COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (60, 80, 230),
    "yellow": (230, 210, 50),
}


def noise_images(num_images: int, *, size: int = 8, seed: int = 0) -> ImageData:
    """Return images of uniform noise in two classes.

    Args:
        num_images: How many.
        size: Height and width in pixels.
        seed: Seeds the noise.

    Returns:
        RGB images with alternating labels.
    """
    stream = generator(seed, "noise_images")
    shape = (num_images, 3, size, size)
    return ImageData(
        images=torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8),
        labels=torch.arange(num_images) % 2,
        ids=tuple(f"noise/{i}" for i in range(num_images)),
        class_names=("even", "odd"),
    )


def digit_images(*, size: int = 32) -> ImageData:
    """Return scikit-learn's 1,797 handwritten digits as RGB images.

    Args:
        size: Height and width in pixels; the 8x8 originals are enlarged.

    Returns:
        The digits in the order of scikit-learn, with ten classes.

    Example:
        >>> digits = digit_images()
        >>> digits.images.shape, digits.class_names[:3]
        (torch.Size([1797, 3, 32, 32]), ('0', '1', '2'))
    """
    from sklearn.datasets import load_digits  # its import takes a second

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = functional.interpolate(
        grey, size=(size, size), mode="bilinear", align_corners=False
    )
    return ImageData(
        images=to_uint8(large).expand(-1, 3, -1, -1).contiguous(),
        labels=torch.from_numpy(bunch.target).long(),
        ids=tuple(f"digit/{i:04d}" for i in range(len(grey))),
        class_names=tuple(str(i) for i in range(10)),
    )


def shape_prompts() -> tuple[tuple[str, ...], ...]:
    """Return the prompts of each shape: all colours, on black and on white.

    Returns:
        Eight texts for each of the four shapes.
    """
    return tuple(
        tuple(f"a {c} {s} on {g}" for c in _COLOURS for g in ("black", "white"))
        for s in SHAPES
    )


def shape_pairs(num_pairs: int, *, size: int = 24, seed: int = 0) -> PairData:
    """Return made-up shapes with captions that say what they show.

    Shapes and colours go round in the order of the pairs; place, size and a little
    noise are drawn.

    Args:
        num_pairs: How many.
        size: Height and width in pixels, at least 16.
        seed: Seeds what is drawn.

    Returns:
        RGB images labelled by shape, with captions.

    Example:
        >>> shape_pairs(6).captions[:2]
        ('a red circle on black', 'a red square on black')
    """
    stream = generator(seed, "shape_pairs")
    images, captions = [], []
    for i in range(num_pairs):
        colour = list(_COLOURS)[i // 4 % 4]
        is_white = bool(i // 16 % 2)
        mask = _shape(i % 4, size, stream)
        ink = torch.tensor(_COLOURS[colour]).view(3, 1, 1)
        image = torch.where(mask, ink, 235 if is_white else 20).float()
        noise = 8 * torch.randn(image.shape, generator=stream)
        images.append(to_uint8((image + noise) / 255))
        ground = "white" if is_white else "black"
        captions.append(f"a {colour} {SHAPES[i % 4]} on {ground}")
    return PairData(
        images=torch.stack(images),
        captions=tuple(captions),
        ids=tuple(f"shape/{i:05d}" for i in range(num_pairs)),
        labels=torch.arange(num_pairs) % 4,
        class_names=SHAPES,
    )


def _shape(kind: int, size: int, stream: torch.Generator) -> Tensor:
    draw = torch.rand(3, generator=stream)
    radius = size * (0.2 + 0.1 * draw[0])
    middle = radius + (size - 2 * radius) * draw[1:]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    dy, dx = y - middle[0], x - middle[1]
    high, wide = dy.abs(), dx.abs()
    if kind == 0:
        return dy**2 + dx**2 <= radius**2
    if kind == 1:
        return torch.maximum(high, wide) <= 0.85 * radius
    if kind == 2:
        return (high <= radius) & (wide <= (dy + radius) / 2)
    is_bar = torch.minimum(high, wide) <= 0.3 * radius
    return is_bar & (torch.maximum(high, wide) <= radius)
