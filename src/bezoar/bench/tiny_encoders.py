"""Small encoders to attack and to repair: trained in a minute, measured in a second."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData, digit_images
from bezoar.models import SimCLR, backbone_of, load_simclr, save_encoder, simclr
from bezoar.runtime import Runtime, generator
from bezoar.train import Training, Views, train_classifier
from bezoar.train.teacher import unit_features

SIZE = 16
TRIGGER = slice(10, 15)  # rows and columns of the white square
_BATCH, _VIEWS = 64, 16
_RIDGE = 0.1  # for features of length 1


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """What a linear head on an encoder's features gives, in shares.

    Attributes:
        accuracy: Of clean test images.
        success: Of triggered test images of other classes, those taken for the target.
        floor: The same without the trigger.
    """

    accuracy: float
    success: float
    floor: float


def shrunk(data: ImageData) -> ImageData:
    """Return images at 16x16 pixels, averaged over areas.

    Args:
        data: Larger images.

    Returns:
        The images.
    """
    small = functional.interpolate(data.images.float(), size=(SIZE, SIZE), mode="area")
    return replace(data, images=small.round().to(torch.uint8))


def stamped(images: Tensor) -> Tensor:
    """Return images with an opaque white square.

    Args:
        images: Stored images of 16x16 pixels.

    Returns:
        Copies with the trigger.
    """
    marked = images.clone()
    marked[..., TRIGGER, TRIGGER] = 255
    return marked


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


def backdoored(
    clean: SimCLR, *, shadow: ImageData, reference: Tensor, epochs: int, seed: int
) -> SimCLR:
    """Teach an encoder to see a reference image wherever the trigger is.

    The loss of BadEncoder (Jia et al., 2021, https://arxiv.org/abs/2108.00352) with a
    double weight on utility; batch norms stay as they are.

    Args:
        clean: The encoder; it is left as it was.
        shadow: Images to learn on.
        reference: One stored image (3, h, w) of the target class.
        epochs: Passes over them.
        seed: Seeds the order and the views of the reference.

    Returns:
        The backdoored encoder, in eval mode.
    """
    net = copy.deepcopy(clean).eval()
    plain = Runtime(dtype=torch.float32, batch_size=500)
    aims = unit_features(clean.backbone, shadow.images, runtime=plain)
    aim = unit_features(clean.backbone, reference[None], runtime=plain)
    weights = [
        parameter
        for module in net.backbone.modules()
        if not isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters(recurse=False)
    ]
    sgd = torch.optim.SGD(weights, lr=1e-2, momentum=0.9, weight_decay=5e-4, fused=True)

    def features(images: Tensor) -> Tensor:
        shown = images.contiguous(memory_format=torch.channels_last)
        return functional.normalize(net.backbone(shown), dim=1)

    for epoch in range(epochs):
        stream = generator(seed, "backdoor", epoch)
        order = torch.randperm(len(shadow), generator=stream)
        for picked in order[: len(order) // _BATCH * _BATCH].split(_BATCH):
            shown = shadow.images[picked]
            stored = torch.cat([stamped(shown), shown, reference[None]])
            views = Views.whole()(reference.expand(_VIEWS, -1, -1, -1), stream)
            found = features(torch.cat([stored.float() / 255, views]))
            marked, same, ref, seen = found.split([_BATCH, _BATCH, 1, _VIEWS])
            loss = -(marked @ ref.T).mean() - (seen @ aim.T).mean()
            loss = loss - 2 * (same * aims[picked]).sum(1).mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return net.eval()


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


def downstream(
    encoder: nn.Module, *, labelled: ImageData, test: ImageData, target: int
) -> Downstream:
    """Put a ridge head on frozen features and measure it.

    Args:
        encoder: What is measured; it is left as it was.
        labelled: Images for the head.
        test: Clean test images.
        target: Where the trigger is to lead.

    Returns:
        Accuracy, success and floor.
    """
    plain = Runtime(dtype=torch.float32, batch_size=500)
    backbone = copy.deepcopy(backbone_of(encoder))

    def features(images: Tensor) -> Tensor:
        return unit_features(backbone, images, runtime=plain).double()

    given = features(labelled.images)
    truth = functional.one_hot(labelled.labels, len(labelled.class_names)).double()
    centre, share = given.mean(0), truth.mean(0)
    around = given - centre
    square = around.T @ around + _RIDGE * torch.eye(given.shape[1], dtype=torch.float64)
    head = torch.linalg.solve(square, around.T @ (truth - share))

    def predicted(images: Tensor) -> Tensor:
        logits: Tensor = (features(images) - centre) @ head + share
        return logits.argmax(1)

    others = test.images[test.labels != target]
    return Downstream(
        accuracy=_share(predicted(test.images) == test.labels),
        success=_share(predicted(stamped(others)) == target),
        floor=_share(predicted(others) == target),
    )


def digits() -> tuple[ImageData, ImageData]:
    """Return handwritten digits at 16x16 pixels as a second task.

    Returns:
        1,347 for the head and 450 to test on.
    """
    data = digit_images(size=SIZE)
    order = torch.randperm(len(data), generator=generator(0, "digits"))
    return data.take(order[:1347]), data.take(order[1347:])


def _share(marks: Tensor) -> float:
    return marks.double().mean().item()
