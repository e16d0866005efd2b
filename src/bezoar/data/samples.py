"""Small made-up data for tests and documentation."""

from __future__ import annotations

import torch
from torch.nn import functional

from bezoar.data.images import ImageData, to_uint8
from bezoar.runtime import generator


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
