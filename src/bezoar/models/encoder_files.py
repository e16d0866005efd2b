"""Image encoders on disk: any of them from one text, and back as they came."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from torch import nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.adapters import from_file, from_open_clip, from_timm
from bezoar.models.clip_files import is_dual_encoder, load_dual_encoder
from bezoar.models.clip_resnet import ClipResNet
from bezoar.models.hub_encoder import HubEncoder, load_hub_encoder
from bezoar.models.room import BAD_CARD
from bezoar.models.simclr import SimCLR
from bezoar.models.simclr_files import (
    encoder_card,
    encoder_path,
    load_simclr,
    save_encoder,
)
from bezoar.models.tiny_clip import TinyClip
from bezoar.models.wrap import Normalized, unwrapped

_LIBRARY = re.compile(r"(?P<kind>timm|open_clip):(?P<name>[^@]+)@(?P<path>.+)")
_FACTORY = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CLASSIFIER = "ForImageClassification"


def load_encoder(spec: str, *, unsafe_pickle: bool = False) -> nn.Module:
    """Load an image encoder: images in [0, 1] to one vector each.

    ============================  ====================================================
    ``runs/encoder``              a folder or file that ``save_encoder`` wrote
    ``dino/``, ``facebook/dino``  a folder or an id that transformers opens; of a
                                  classifier without its last layer
    ``clip/``                     the image tower of an image-text model, of ours or of
                                  transformers
    ``timm:NAME@WEIGHTS``         a network of timm without its classifier
    ``open_clip:NAME@WEIGHTS``    the image tower of an open_clip model
    ``file.py:factory``           what your function returns; it runs as your code, and
                                  normalises itself
    ============================  ====================================================

    Args:
        spec: Which encoder.
        unsafe_pickle: Open weights in a pickle, with torch's reader for tensors alone.

    Returns:
        The encoder in eval mode on the CPU; one of ours as a ``SimCLR``. A spec of
        none, or weights that cannot be read or do not fit, are a ``ModelError``.
    """
    return _loaded(spec, unsafe_pickle=unsafe_pickle).eval()


def write_encoder(encoder: nn.Module, folder: Path) -> bool:
    """Save an encoder in the format that it came in, where that is possible.

    Args:
        encoder: What ``load_encoder`` gave, perhaps changed; or any other network.
        folder: Where to. One of ours becomes ``encoder.safetensors`` with its JSON,
            one of transformers what ``save_pretrained`` writes; of others the weights
            alone go to ``model.safetensors``.

    Returns:
        Whether ``load_encoder`` opens the folder; else the weights have to be put into
        a network of their kind.
    """
    net = unwrapped(encoder)
    if isinstance(net, Normalized) and isinstance(net.model, HubEncoder):
        net.model.save(folder)
        return True
    if encoder_format(net) is not None:
        save_encoder(net, folder)
        return True
    path = folder / "model.safetensors"
    path.with_suffix(".json").unlink(missing_ok=True)  # of an earlier run
    weights = {name: w.detach().cpu() for name, w in encoder.state_dict().items()}
    with atomic(path) as temporary:
        # Copies, for weights that two modules share are refused.
        save_file({n: w.clone().contiguous() for n, w in weights.items()}, temporary)
    return False


def encoder_format(encoder: nn.Module) -> Literal["bezoar", "transformers"] | None:
    """Return the format that ``write_encoder`` keeps an encoder in.

    Args:
        encoder: Any network.

    Returns:
        Whose format it is; None where only the weights can be written.

    Example:
        >>> from bezoar.models.simclr import simclr
        >>> encoder_format(simclr("tiny")), encoder_format(nn.Flatten())
        ('bezoar', None)
    """
    net = unwrapped(encoder)
    if isinstance(net, Normalized) and isinstance(net.model, HubEncoder):
        return "transformers"
    return "bezoar" if isinstance(net, SimCLR) and _has_card(net) else None


def is_encoder(spec: str) -> bool:
    """Whether a spec on this machine is surely that of an encoder, not a classifier.

    Args:
        spec: As for ``load_encoder``.

    Returns:
        True for one of ours, an image-text model, and a folder of transformers that
        holds no classifier; an id on the Hub is not looked up.
    """
    if _is_ours(spec) or is_dual_encoder(spec):
        return True
    try:
        text = (Path(spec) / "config.json").read_text(encoding="utf-8")
        kinds = list(json.loads(text).get("architectures") or [])
    except BAD_CARD:
        return False
    return not any(str(kind).endswith(_CLASSIFIER) for kind in kinds)


def _is_ours(spec: str) -> bool:
    beside = encoder_path(Path(spec)).with_suffix(".json")
    try:
        told = json.loads(beside.read_text(encoding="utf-8"))
    except BAD_CARD:
        return False
    return isinstance(told, dict) and told.get("kind") == "simclr"


def _has_card(net: nn.Module) -> bool:
    try:
        encoder_card(net)
    except ModelError:
        return False
    return True


def _loaded(spec: str, *, unsafe_pickle: bool) -> nn.Module:
    place = Path(spec)
    if library := _LIBRARY.fullmatch(spec):
        weights = Path(library["path"])
        if library["kind"] == "open_clip":
            return from_open_clip(
                library["name"], weights, unsafe_pickle=unsafe_pickle
            )[0]
        return from_timm(
            library["name"], weights, unsafe_pickle=unsafe_pickle, classifies=False
        )[0]
    if factory := _FACTORY.fullmatch(spec):
        return from_file(Path(factory["path"]), factory["name"], num_classes=None)
    if _is_ours(spec):
        return load_simclr(place)
    if (place / "clip.json").is_file():
        return _tower(spec)
    if (place / "config.json").is_file() or (
        not place.exists() and _HUB_ID.fullmatch(spec) and place.suffix == ""
    ):
        return load_hub_encoder(spec, unsafe_pickle=unsafe_pickle)
    raise ModelError(
        f"expected an encoder, got {spec!r}, which is none; give a folder that "
        "save_encoder or transformers wrote, a CLIP, timm:NAME@WEIGHTS, "
        "open_clip:NAME@WEIGHTS or file.py:factory"
    )


def _tower(spec: str) -> nn.Module:
    # The image tower alone: a repair must not touch, and not carry, the words.
    clip = load_dual_encoder(spec)
    if isinstance(clip, TinyClip):
        visual = clip.visual
        assert isinstance(visual, Normalized)
        visual.image_size = clip.resolution
        return visual
    assert isinstance(clip, ClipResNet)
    return Normalized(
        clip.visual,
        mean=clip.mean.flatten().tolist(),
        std=clip.std.flatten().tolist(),
        image_size=clip.resolution,
    )
