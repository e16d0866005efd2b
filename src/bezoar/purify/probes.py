"""Three probes that learn the classes of images and are asked for those of others.

Each is blind to something: a small network to noise that starts anew in each image, a
linear rule on the pixels of the fine detail too, and one on how its neighbouring
pixels go together to what always stands at the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.metrics import evaluate, separability
from bezoar.models import Architecture
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float
from bezoar.train import Training, train_classifier

PROBES = {
    "network": "a small network",
    "pixels": "a linear rule on the pixels of the fine detail",
    "texture": "a linear rule on the texture of the fine detail",
}
SIDE = 64  # pixels of the middle that are looked at
PROTOCOL = Training(epochs=12)
_WIDTH, _TRAIN_RATE = 16, 0.8


def told_classes(data: ImageData, *, seed: int, runtime: Runtime) -> dict[str, float]:
    """Return how often each probe tells the class of images it was not shown.

    Args:
        data: Labelled images; of sides above 64 pixels the middle is taken.
        seed: Seeds splits and network.
        runtime: Where and how to run.

    Returns:
        Accuracies by probe.
    """
    detail = fine_detail(middle(data.images).float() / 255)
    linear = separability(detail, data.labels, seed=seed)
    return {
        "network": held_out_accuracy(data, seed=seed, runtime=runtime),
        "pixels": linear["pixels"],
        "texture": linear["autocorrelation"],
    }


def held_out_accuracy(
    data: ImageData, *, seed: int = 0, runtime: Runtime = Runtime()
) -> float:
    """Return how often a small network tells the class of images it was not shown.

    Args:
        data: Labelled images; of sides above 64 pixels the middle is taken.
        seed: Seeds split, network and order.
        runtime: Where and how to run.

    Returns:
        Accuracy on a fifth of the images; the network was trained on the rest.
    """
    order = torch.randperm(len(data), generator=generator(seed, "learnability.split"))
    count = round(_TRAIN_RATE * len(data))
    images = middle(data.images)
    if images.shape[1] == 1:  # the network takes colour images
        images = images.expand(-1, 3, -1, -1)
    seen = replace(data, images=images)
    network = Architecture(
        name="convnet",
        num_classes=len(data.class_names),
        width=_WIDTH,
    ).build(seed)
    quiet = replace(runtime, progress=_silent, work_dir=None)
    model = train_classifier(
        network,
        data=seen.take(order[:count]),
        settings=PROTOCOL,
        seed=seed,
        runtime=quiet,
    )
    found = evaluate(model, seen.take(order[count:]), runtime=quiet)
    return found.clean_accuracy


def fine_detail(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return what a blur takes out of images.

    Args:
        images: Images in [0, 1].

    Returns:
        The images less the mean over 3x3 pixels, the border reflected.
    """
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    return images - functional.avg_pool2d(padded, 3, stride=1)


def middle(images: Tensor) -> Tensor:
    """Return the middle of images.

    Args:
        images: Images NCHW.

    Returns:
        At most 64 pixels of each side.
    """
    height, width = images.shape[2:]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return images[..., top : top + SIDE, left : left + SIDE].contiguous()


_silent: Callable[[Progress], None] = Runtime().progress
