"""Our networks by name and sizes: what is stored beside their weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.convnet import convnet
from bezoar.models.probe import reason
from bezoar.models.resnet import Stem, resnet18, resnet34, resnet50
from bezoar.models.room import BAD_CARD
from bezoar.models.wrap import Normalized

_RESNETS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}
_DEPTHS = {
    (2, 2, 2, 2, 2): "resnet18",  # convolutions of a block, then blocks per layer
    (2, 3, 4, 6, 3): "resnet34",
    (3, 3, 4, 6, 3): "resnet50",
}
_STEMS: dict[int, Stem] = {3: "cifar", 7: "imagenet"}
_LARGEST = torch.finfo(torch.float32).max
NAMES = (*_RESNETS, "convnet")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One of our networks: everything about it but its weights.

    Attributes:
        name: "resnet18", "resnet34", "resnet50" or "convnet".
        num_classes: Logits per image.
        width: Channels of the first layer; None takes the usual 64, or 32 for convnet.
        stem: Start of a ResNet: "cifar" for small images, "imagenet" for large ones.
        mean: Per channel, subtracted from images in [0, 1].
        std: Per channel, divides afterwards.
        class_names: Names of the classes in the order of the logits, or none.
        image_size: Height and width in pixels that it is trained on, if known.

    Example:
        >>> arch = Architecture(name="resnet18", num_classes=10, width=8)
        >>> type(arch.build().model).__name__
        'ResNet'
    """

    name: str
    num_classes: int
    width: int | None = None
    stem: Stem = "cifar"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    class_names: tuple[str, ...] = ()
    image_size: int | None = None

    def __post_init__(self) -> None:
        _check(vars(self))

    def build(self, seed: int = 0) -> Normalized:
        """Return the network with first weights, around it the normalisation.

        Args:
            seed: Seeds the weights.

        Returns:
            The network; it takes images in [0, 1].
        """
        sizes: dict[str, Any] = {"in_channels": len(self.mean), "seed": seed}
        if self.width is not None:
            sizes["width"] = self.width
        if self.name == "convnet":
            network: nn.Module = convnet(self.num_classes, **sizes)
        else:
            network = _RESNETS[self.name](self.num_classes, stem=self.stem, **sizes)
        return Normalized(
            network,
            mean=self.mean,
            std=self.std,
            image_size=self.image_size,
            class_names=self.class_names,
        )


def write_settings(architecture: Architecture, path: Path, *, sha256: str) -> None:
    """Write an architecture as JSON.

    Args:
        architecture: What to write.
        path: The file.
        sha256: Hash of the weights that belong to it.
    """
    settings = asdict(architecture) | {"sha256": sha256}
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read_settings(path: Path) -> tuple[Architecture, str]:
    """Read what ``write_settings`` wrote.

    Args:
        path: The file.

    Returns:
        The architecture, and the hash of its weights.

    Raises:
        ModelError: If it is no JSON, or lacks a setting, or one makes no sense.
    """
    known = {field.name for field in fields(Architecture)} | {"sha256"}
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8")))
        settings |= {
            name: tuple(settings[name])
            for name in ("mean", "std", "class_names")
            if name in settings
        }
    except BAD_CARD as error:
        raise ModelError(
            f"expected the settings of a model as JSON in {str(path)!r}, got "
            f"{reason(error)}; restore the file that was saved with the weights"
        ) from error
    wrong = {"name", "num_classes", "sha256"} - set(settings) or set(settings) - known
    if wrong:
        raise ModelError(
            f"expected the settings of a model in {str(path)!r}, got none or unknown "
            f"ones as to {min(wrong)!r}; restore the file that was saved with the "
            "weights"
        )
    sha256 = str(settings.pop("sha256"))
    _check({field.name: field.default for field in fields(Architecture)} | settings)
    return Architecture(**settings), sha256


def inferred(weights: Mapping[str, Tensor], *, path: Path) -> Architecture:
    """Tell from names and shapes of weights which of our networks they belong to.

    The normalisation does not show: an imagenet stem gets the mean and deviation of
    ImageNet that public weights are trained with, all others get none.

    Args:
        weights: Tensors by name.
        path: Where they come from, for the message.

    Returns:
        The architecture, without class names.

    Raises:
        ModelError: If they belong to none.
    """
    is_convnet = "stage1.conv.weight" in weights
    name = "convnet" if is_convnet else _resnet_name(weights)
    first = weights.get("stage1.conv.weight" if is_convnet else "conv1.weight")
    late = weights.get("stage4.conv.weight" if is_convnet else "layer4.0.conv1.weight")
    last = weights.get("fc.weight")
    stem = None if first is None or first.ndim != 4 else _STEMS.get(first.shape[-1])
    if (
        (first is None or late is None or last is None or late.ndim == 0)
        or (name is None or stem is None or last.ndim != 2)
        or len(late) != (4 if is_convnet else 8) * len(first)
    ):
        raise ModelError(
            f"expected weights of one of {', '.join(NAMES)} in {path.name!r}, got "
            f"others such as {', '.join(list(weights)[:3])}; name a loader such as "
            "timm:NAME@weights or file.py:factory"
        )
    channels = first.shape[1]
    is_imagenet = stem == "imagenet" and channels == 3
    return Architecture(
        name=name,
        num_classes=len(last),
        width=len(first),
        stem=stem,
        mean=(0.485, 0.456, 0.406) if is_imagenet else (0.0,) * channels,
        std=(0.229, 0.224, 0.225) if is_imagenet else (1.0,) * channels,
    )


def _check(settings: Mapping[str, Any]) -> None:
    # Of unknown types: what is wrong in a file is told as what is wrong in a call.
    name, stem = settings["name"], settings["stem"]
    count, class_names = settings["num_classes"], settings["class_names"]
    optional = [settings["width"], settings["image_size"]]
    sizes = [count, *(size for size in optional if size is not None)]
    mean, std = settings["mean"], settings["std"]
    faults = {
        f"name {name!r}": name not in NAMES,
        f"stem {stem!r}": stem not in _STEMS.values(),
        "an imagenet stem for a convnet": name == "convnet" and stem != "cifar",
        "sizes that are no whole numbers above 0": not all(map(_is_size, sizes)),
        f"class names {class_names} for {count} classes": (
            len(class_names) not in (0, count)
            or not all(isinstance(name, str) for name in class_names)
        ),
        f"mean {mean} and std {std}": not (
            len(mean) == len(std) > 0
            and all(map(_is_finite, (*mean, *std)))
            and min(std) > 0
        ),
    }
    for fault, is_so in faults.items():
        if is_so:
            raise ModelError(
                f"expected sizes of one of {', '.join(NAMES)}, got {fault}; "
                "correct the architecture"
            )


def _resnet_name(weights: Mapping[str, Tensor]) -> str | None:
    depths = [
        sum(f"layer{i}.{j}.conv1.weight" in weights for j in range(99))
        for i in (1, 2, 3, 4)
    ]
    convs = 3 if "layer1.0.conv3.weight" in weights else 2
    return _DEPTHS.get((convs, *depths))  # type: ignore[arg-type]


def _is_finite(number: object) -> bool:
    # Not math.isfinite, for which a whole number of 400 digits is too large.
    return isinstance(number, int | float) and abs(number) <= _LARGEST


def _is_size(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0
