"""Small encoders to attack and to repair: trained in a minute, measured in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from bezoar.data import ImageData, digit_images
from bezoar.metrics import EncoderTask
from bezoar.models import SimCLR, backbone_of, load_simclr, save_encoder, simclr
from bezoar.runtime import Runtime, generator
from bezoar.train import Training, train_classifier
from bezoar.train.teacher import unit_features

SIZE = 16


def shrunk(data: ImageData) -> ImageData:
    """Return images at 16x16 pixels, averaged over areas.

    Args:
        data: Larger images.

    Returns:
        The images.
    """
    small = functional.interpolate(data.images.float(), size=(SIZE, SIZE), mode="area")
    return replace(data, images=small.round().to(torch.uint8))


def pretrained(data: ImageData, *, epochs: int, seed: int, runtime: Runtime) -> SimCLR:
    """Train a small encoder with labels: SimCLR would take longer.

    Args:
        data: Labelled images of 16x16 pixels.
        epochs: Passes over them.
        seed: Seeds everything.
        runtime: Where and how to run.

    Returns:
        The encoder in eval mode; its projector is untrained.
    """
    net = simclr("tiny", seed=seed)
    size = net.projector.get_submodule("0").in_features
    assert isinstance(size, int)
    head = nn.Linear(size, len(data.class_names))
    bound = size**-0.5
    with torch.no_grad():
        for parameter in head.parameters():
            stream = generator(seed, "head")
            parameter.uniform_(-bound, bound, generator=stream)
    trained = train_classifier(
        nn.Sequential(net.backbone, head),
        data=data,
        settings=Training(epochs=epochs, augment="crop_flip"),
        seed=seed,
        runtime=runtime,
    )
    return SimCLR(trained.get_submodule("0"), net.projector).eval()


def typical(data: ImageData, encoder: nn.Module, *, target: int) -> int:
    """Return the image that an attacker takes as reference: the clearest of a class.

    Args:
        data: Labelled images.
        encoder: The clean encoder.
        target: The class.

    Returns:
        Its place: the one whose features lie furthest along the line from the other
        classes' means to its own.
    """
    features = unit_features(
        backbone_of(encoder), data.images, runtime=Runtime(dtype=torch.float32)
    )
    is_target = data.labels == target
    others = [
        features[data.labels == c].mean(0)
        for c in data.labels.unique().tolist()
        if c != target
    ]
    line = features[is_target].mean(0) - torch.stack(others).mean(0)
    scores = torch.where(is_target, features @ line, -torch.inf)
    return int(scores.argmax())


def kept(
    path: Path, make: Callable[[], tuple[SimCLR, SimCLR]]
) -> tuple[SimCLR, SimCLR]:
    """Return a clean and a backdoored encoder, made once.

    Args:
        path: Folder to keep them in.
        make: Makes both.

    Returns:
        The clean one and the backdoored one.
    """
    places = path / "clean.safetensors", path / "backdoored.safetensors"
    if not all(place.with_suffix(".json").exists() for place in places):
        path.mkdir(parents=True, exist_ok=True)
        for net, place in zip(make(), places, strict=True):
            save_encoder(net, place)
    clean, backdoored = (load_simclr(place) for place in places)
    return clean, backdoored


def digits() -> EncoderTask:
    """Return handwritten digits at 16x16 pixels as a second task.

    Returns:
        1,347 images for the head and 450 to test on; the target is the one.
    """
    data = digit_images(size=SIZE)
    order = torch.randperm(len(data), generator=generator(0, "digits"))
    return EncoderTask(
        name="digits",
        train=data.take(order[:1347]),
        test=data.take(order[1347:]),
        target_class=1,
    )
