"""Images and labels, at rest."""

from bezoar.data.images import (
    UNLABELLED,
    ImageData,
    content_keys,
    join,
    to_uint8,
)
from bezoar.data.samples import digit_images, noise_images

__all__ = [
    "UNLABELLED",
    "ImageData",
    "content_keys",
    "digit_images",
    "join",
    "noise_images",
    "to_uint8",
]
