"""Checks at the public edge; inner functions trust their callers.

Arguments are plain tensors here: with a shape in the signature the test hook would
refuse a wrong tensor before the message below could be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from bezoar.errors import InputError


def check_images(images: Tensor) -> None:
    """Check that images are at least one, uint8 and NCHW.

    Args:
        images: What the caller gave as images.

    Raises:
        InputError: If the type or the shape is another, or there are none.
    """
    if images.dtype != torch.uint8:
        low, high = (f"{v:.3g}" for v in images.aminmax())
        raise InputError(
            f"expected uint8 images, got {images.dtype} in [{low}, {high}]; "
            "give raw images and put the normalisation inside the model"
        )
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"expected images (n, c, h, w) with n > 0, got {tuple(images.shape)}"
        )


def check_same_length(images: Tensor, labels: Tensor, ids: Sequence[str]) -> None:
    """Check that every image has one label and one id of its own.

    Args:
        images: Images, first axis n.
        labels: Class indices.
        ids: Names of the images.

    Raises:
        InputError: If the lengths differ or an id comes twice.
    """
    if not len(images) == len(labels) == len(ids):
        raise InputError(
            "expected one label and one id per image, got "
            f"{len(images)} images, {len(labels)} labels, {len(ids)} ids"
        )
    if len(set(ids)) != len(ids):
        ((twice, _),) = Counter(ids).most_common(1)
        raise InputError(f"expected unique ids, got {twice!r} more than once")


def check_labels(labels: Tensor, *, num_classes: int) -> None:
    """Check that labels name classes, or that there are none at all.

    Args:
        labels: Class indices, or -1 throughout.
        num_classes: How many classes there are; 0 for images without labels.

    Raises:
        InputError: If a label is outside the range.
    """
    low, high = (int(v) for v in labels.aminmax())
    if num_classes == 0 and (low, high) != (-1, -1):
        raise InputError(
            f"expected labels of -1 without class names, got labels from {low} to "
            f"{high}; name the classes"
        )
    if num_classes > 0 and not 0 <= low <= high < num_classes:
        raise InputError(
            f"expected labels from 0 to {num_classes - 1}, got labels from {low} to "
            f"{high}; correct the labels or name all the classes"
        )
