"""Any model from one text: ours, of transformers, timm and open_clip, or of a file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.adapters import from_file, from_open_clip, from_timm
from bezoar.models.architecture import (
    NAMES,
    Architecture,
    inferred,
    read_settings,
    write_settings,
)
from bezoar.models.convnet import ConvNet
from bezoar.models.huggingface import from_transformers
from bezoar.models.resnet import ResNet
from bezoar.models.room import room_for
from bezoar.models.weights import file_sha256, put_weights, read_weights
from bezoar.models.wrap import Normalized, unwrapped

_LIBRARY = re.compile(r"(?P<kind>timm|open_clip):(?P<name>[^@]+)@(?P<path>.+)")
_FACTORY = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")
_NAMED = re.compile(r"(?P<name>\w+)@(?P<path>.+)")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(
    spec: str, *, num_classes: int | None = None, unsafe_pickle: bool = False
) -> nn.Module:
    """Load a model that takes images in [0, 1], in eval mode on the CPU.

    ======================================  ==========================================
    ``runs/model``, ``runs/w.safetensors``  saved by ``save_model``
    ``resnet18@w.safetensors``              weights alone; also resnet34, resnet50 and
                                            convnet; sizes are told by the shapes
    ``photos-vit``, ``google/vit``          a folder or an id that transformers opens
    ``timm:NAME@WEIGHTS``                   weights for a network of timm
    ``open_clip:NAME@WEIGHTS``              the image encoder of an open_clip model
    ``file.py:factory``                     what your function returns; it runs as
                                            your code, and normalises itself
    ======================================  ==========================================

    Weights without settings beside them do not tell their normalisation: ours get the
    one of ImageNet with an imagenet stem, and none with a cifar stem.

    Args:
        spec: Which model.
        num_classes: How many classes it must have; None accepts any number. It is
            given to a factory that asks for it; an image encoder has none.
        unsafe_pickle: Open weights in a pickle, with torch's reader for tensors alone.

    Returns:
        The model. Where they are known, ``image_size`` and ``class_names`` of the
        ``Normalized`` around it tell what it was made for.

    Raises:
        ModelError: If there is no such model, it cannot be read, its weights do not
            fit, or it has another number of classes.
    """
    model, count = _loaded(spec, num_classes=num_classes, unsafe_pickle=unsafe_pickle)
    if count is not None and num_classes not in (None, count):
        raise ModelError(
            f"expected a model of {num_classes} classes, got one of {count} from "
            f"{spec!r}; give the model that was trained on these classes"
        )
    return model.eval()


def save_model(model: nn.Module, path: Path, *, architecture: Architecture) -> None:
    """Save one of our networks, its weights as safetensors and the rest as JSON.

    Args:
        model: What ``architecture.build`` returned, now trained; or the network alone.
        path: A file ``*.safetensors``, with the JSON beside it; or a folder, which
            gets ``model.safetensors`` and ``model.json``.
        architecture: What the model is.

    Raises:
        ModelError: If the model is another than the architecture tells.
    """
    core = unwrapped(model)
    fresh = architecture.build()
    if isinstance(core, Normalized):
        same = core.mean.cpu().equal(fresh.mean) and core.std.cpu().equal(fresh.std)
        if not same:
            raise ModelError(
                f"expected a model that normalises by {architecture.mean} and "
                f"{architecture.std}, got one that does not; give its own architecture"
            )
        core = unwrapped(core.model)
    weights = {name: w.detach().cpu() for name, w in core.state_dict().items()}
    path = _weights_path(path)
    put_weights(fresh.model, weights, path=path)
    with atomic(path) as temporary:
        save_file({n: w.contiguous() for n, w in weights.items()}, temporary)
        sha256 = file_sha256(temporary)
    with atomic(path.with_suffix(".json")) as temporary:
        write_settings(architecture, temporary, sha256=sha256)


def architecture_of(model: nn.Module) -> Architecture | None:
    """Return what one of our networks is, such as ``save_model`` asks for.

    Args:
        model: Any model; ours may stand in a ``Normalized``.

    Returns:
        All about it but its weights; None for a network of another library.
    """
    core = unwrapped(model)
    around = core if isinstance(core, Normalized) else None
    core = unwrapped(core.model) if isinstance(core, Normalized) else core
    if not isinstance(core, ConvNet | ResNet):
        return None
    if isinstance(core, ResNet) and isinstance(core.fc, nn.Identity):
        return None  # an encoder, which has no classes
    shown = inferred(core.state_dict(), path=Path("the model"))
    if around is None:
        channels = len(shown.mean)
        return replace(shown, mean=(0.0,) * channels, std=(1.0,) * channels)
    return replace(
        shown,
        mean=tuple(around.mean.flatten().tolist()),
        std=tuple(around.std.flatten().tolist()),
        class_names=around.class_names,
        image_size=around.image_size,
    )


def _loaded(
    spec: str, *, num_classes: int | None, unsafe_pickle: bool
) -> tuple[nn.Module, int | None]:
    # The model, and its number of classes where that is known.
    place = Path(spec)
    library = _LIBRARY.fullmatch(spec)
    factory = _FACTORY.fullmatch(spec)
    named = _NAMED.fullmatch(spec)
    if library is not None:
        load = from_timm if library["kind"] == "timm" else from_open_clip
        return load(library["name"], Path(library["path"]), unsafe_pickle=unsafe_pickle)
    if factory is not None:
        path = Path(factory["path"])
        return from_file(path, factory["name"], num_classes=num_classes), None
    if place.is_file() or (place / "model.json").is_file():
        return _ours(place, name=None, unsafe_pickle=unsafe_pickle)
    if named is not None and not place.exists():
        weights = Path(named["path"])
        return _ours(weights, name=named["name"], unsafe_pickle=unsafe_pickle)
    if (spec and place.is_dir()) or (_HUB_ID.fullmatch(spec) and spec not in NAMES):
        return from_transformers(spec, unsafe_pickle=unsafe_pickle)
    raise ModelError(
        f"expected a model, got {spec!r}, which is no file or folder; write a path, "
        "NAME@weights.safetensors, timm:NAME@WEIGHTS, open_clip:NAME@WEIGHTS or "
        "file.py:factory"
    )


def _ours(
    place: Path, *, name: str | None, unsafe_pickle: bool
) -> tuple[Normalized, int]:
    if name not in (None, *NAMES):
        raise ModelError(
            f"expected one of {', '.join(NAMES)} before the @, got {name!r}; use "
            "timm:NAME@WEIGHTS for a network of timm"
        )
    path = _weights_path(place) if place.is_dir() else place
    weights = read_weights(path, unsafe_pickle=unsafe_pickle)
    shown = inferred(weights, path=path)
    beside = path.with_suffix(".json")
    told = _told(beside, path, shown) if beside.is_file() else shown
    if name not in (None, told.name):
        raise ModelError(
            f"expected weights of {name}, got those of {told.name} in {path.name!r}; "
            f"write {told.name}@ before them"
        )
    with room_for(weights):
        model = told.build()
    put_weights(model.model, weights, path=path)
    return model, told.num_classes


def _told(settings: Path, path: Path, shown: Architecture) -> Architecture:
    # What the settings beside weights tell, once they are known to be theirs.
    told, sha256 = read_settings(settings)
    if sha256 != file_sha256(path):
        raise ModelError(
            f"expected the weights that {settings.name!r} was written for, got "
            f"others in {path.name!r}; restore the pair, or remove the JSON"
        )
    sizes = replace(
        shown,
        mean=told.mean,
        std=told.std,
        class_names=told.class_names,
        image_size=told.image_size,
        width=None if told.width is None else shown.width,
    )
    if sizes != told:
        raise ModelError(
            f"expected settings of a {shown.name} of {shown.num_classes} classes, "
            f"width {shown.width} and {shown.stem} stem in {settings.name!r}, got "
            "others; restore the file that was saved with the weights"
        )
    return told


def _weights_path(place: Path) -> Path:
    return place if place.suffix == ".safetensors" else place / "model.safetensors"
