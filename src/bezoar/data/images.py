"""Labelled images in memory: uint8 at rest, float in [0, 1] on the way to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bezoar.checks import check_images, check_labels, check_same_length
from bezoar.shapes import Bool, Float, Int64, UInt8

UNLABELLED = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """Labelled images of one size.

    Attributes:
        images: Images as they are stored.
        labels: Class indices; all -1 (``UNLABELLED``) where there are none.
        ids: A stable, unique name per image.
        class_names: Names by class index; empty where there are no labels.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_images(self.images)
        check_same_length(self.images, self.labels, self.ids)
        check_labels(self.labels, num_classes=len(self.class_names))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_labelled(self) -> bool:
        """Whether the images have labels."""
        return len(self.class_names) > 0

    def batches(
        self, size: int
    ) -> Iterator[tuple[tuple[str, ...], Float[Tensor, "b c h w"]]]:
        """Iterate over ids and images in [0, 1].

        Args:
            size: Images per batch; the last batch may be smaller.

        Yields:
            The ids and the images of one batch.
        """
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield self.ids[part], self.images[part].float() / 255

    def subset(self, keep: Bool[Tensor, " n"]) -> ImageData:
        """Return the images for which ``keep`` is True.

        Args:
            keep: One decision per image.

        Returns:
            The images kept, in the order they had.
        """
        return self.take(keep.nonzero().flatten())

    def take(self, indices: Int64[Tensor, " m"]) -> ImageData:
        """Return the images at ``indices``, in that order.

        Args:
            indices: Positions from 0 to n - 1, each at most once.

        Returns:
            The images taken.
        """
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            ids=tuple(self.ids[i] for i in indices.tolist()),
        )


def join(parts: Sequence[ImageData]) -> ImageData:
    """Return several sets as one.

    Args:
        parts: At least one set, all of one image size and the same classes.

    Returns:
        The images of all, in order.
    """
    return replace(
        parts[0],
        images=torch.cat([p.images for p in parts]),
        labels=torch.cat([p.labels for p in parts]),
        ids=tuple(i for p in parts for i in p.ids),
    )


def content_keys(images: UInt8[Tensor, "n c h w"]) -> tuple[str, ...]:
    """Return a name for each image that depends on its pixels alone.

    Random streams are keyed by it, so that one image gets one result in whatever
    format, order or company it comes.

    Args:
        images: Images as they are stored.

    Returns:
        One hexadecimal name per image; equal images have equal names.

    Example:
        >>> content_keys(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))[0][:8]
        'ca40e4d7'
    """
    shape = repr(tuple(images.shape[1:])).encode()
    return tuple(
        hashlib.blake2b(shape + image.tobytes(), digest_size=16).hexdigest()
        for image in images.contiguous().numpy()
    )


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Return images in storage form; values outside [0, 1] are clamped first.

    Args:
        images: Images in [0, 1]. A cast without the clamp would wrap -0.01 to 254.

    Returns:
        The images, rounded to the nearest of 256 levels.
    """
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
