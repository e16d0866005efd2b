"""The small network of the detectors that train one of their own on the set."""

from __future__ import annotations

from torch import nn

from bezoar.data import ImageData
from bezoar.models import Architecture


def own_network(data: ImageData, *, width: int, seed: int) -> nn.Module:
    """Build an untrained classifier for a set of images.

    Args:
        data: Labelled images.
        width: Channels of the first layer of a small convnet.
        seed: Seeds the weights.

    Returns:
        The classifier; it takes images in [0, 1] as they are.
    """
    channels = data.images.shape[1]
    return Architecture(
        name="convnet",
        num_classes=max(2, len(data.class_names)),
        width=width,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    ).build(seed)
