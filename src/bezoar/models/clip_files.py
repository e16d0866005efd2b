"""Image-text models on disk: any of them from one spec, and back as they came.

Ours are a folder with ``model.safetensors`` and ``clip.json``, which holds the sizes
and the words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.clip_open_clip import OpenClip, load_open_clip
from bezoar.models.clip_resnet import ClipResNet
from bezoar.models.clip_transformers import TransformersClip, load_transformers_clip
from bezoar.models.dual_encoder import DualEncoder
from bezoar.models.probe import reason
from bezoar.models.room import BAD_CARD, room_for
from bezoar.models.tiny_clip import TinyClip
from bezoar.models.tokenizer import WordTokenizer
from bezoar.models.weights import file_sha256, put_weights, read_weights

_CARD, _WEIGHTS, _OPEN_CLIP = "clip.json", "model.safetensors", "open_clip:"
_FORMAT = 1


def is_dual_encoder(spec: str) -> bool:
    """Whether a spec on this machine is that of an image-text model.

    Args:
        spec: As for ``load_dual_encoder``.

    Returns:
        True for one of ours, one of open_clip, and a CLIP that transformers saved; an
        id on the Hub is not looked up.
    """
    if spec.startswith(_OPEN_CLIP):
        return True
    if (Path(spec) / _CARD).is_file():
        return True
    try:
        text = (Path(spec) / "config.json").read_text(encoding="utf-8")
        config = json.loads(text)
    except BAD_CARD:
        return False
    return isinstance(config, dict) and config.get("model_type") == "clip"


def load_dual_encoder(spec: str, *, unsafe_pickle: bool = False) -> DualEncoder:
    """Load an image-text model, whoever made it.

    Args:
        spec: A folder that ``save_dual_encoder`` wrote; a folder or id of a
            ``CLIPModel`` that transformers opens; or ``open_clip:NAME@weights``.
        unsafe_pickle: Open weights in a pickle, for tensors alone.

    Returns:
        The model in eval mode on the CPU.

    Raises:
        ModelError: If there is none, or its parts do not fit together.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> words = WordTokenizer.from_captions(["a red dot"])
        >>> with TemporaryDirectory() as folder:
        ...     save_dual_encoder(TinyClip(words, resolution=24), Path(folder))
        ...     model = load_dual_encoder(folder)
        >>> model.resolution, model.tokenize(["a dot"]).tolist()
        (24, [[5, 2, 3, 6]])
    """
    if spec.startswith(_OPEN_CLIP):
        name, at, weights = spec.removeprefix(_OPEN_CLIP).partition("@")
        if not at:
            raise ModelError(
                f"expected open_clip:NAME@weights, got {spec!r}; name the file with "
                "the weights"
            )
        return load_open_clip(name, Path(weights), unsafe_pickle=unsafe_pickle)
    if (Path(spec) / _CARD).is_file():
        return _ours(Path(spec))
    return load_transformers_clip(spec, unsafe_pickle=unsafe_pickle)


def save_dual_encoder(model: DualEncoder, folder: Path) -> None:
    """Save an image-text model in the format that it came in.

    Args:
        model: One of ours, or one that ``load_dual_encoder`` gave.
        folder: Where to; files of the same names are replaced. A model of open_clip
            becomes one file in it, for ``open_clip:NAME@FILE``.

    Raises:
        ModelError: If it is another kind of model, or one of ours with a tokenizer
            that is not made of words.
    """
    if isinstance(model, TransformersClip):
        model.save(folder)
    elif isinstance(model, OpenClip):
        model.save(folder / _WEIGHTS)
    elif isinstance(model, TinyClip | ClipResNet):
        _save_ours(model, folder)
    else:
        raise ModelError(
            "expected a TinyClip, a ClipResNet, or a model that load_dual_encoder "
            f"gave, got a {type(model).__name__}; save its state_dict yourself"
        )


def _save_ours(model: TinyClip | ClipResNet, folder: Path) -> None:
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, WordTokenizer):
        raise ModelError(
            f"expected a WordTokenizer to save, got a {type(tokenizer).__name__}; save "
            "the weights and that tokenizer apart"
        )
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic(folder / _WEIGHTS) as temporary:
        save_file(tensors, temporary)
    is_tiny = isinstance(model, TinyClip)
    sizes = {"resolution": model.resolution} if is_tiny else model.settings
    card = {
        "format": _FORMAT,
        "model": "tiny-clip" if is_tiny else "clip-resnet",
        "sizes": sizes,
        "context_length": tokenizer.context_length,
        "words": list(tokenizer.words),
        "sha256": file_sha256(folder / _WEIGHTS),
    }
    with atomic(folder / _CARD) as temporary:
        text = json.dumps(card, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _ours(folder: Path) -> DualEncoder:
    path, weights = folder / _CARD, folder / _WEIGHTS
    found = read_weights(weights)
    try:
        card: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        if card["format"] != _FORMAT:
            raise ValueError(f"format {card['format']!r}")
        tokenizer = WordTokenizer(
            words=tuple(map(str, card["words"])),
            context_length=int(card["context_length"]),
        )
        kinds = {"tiny-clip": TinyClip, "clip-resnet": ClipResNet}
        with room_for(found):
            model: DualEncoder = kinds[card["model"]](tokenizer, **card["sizes"])
        sha256 = card["sha256"]
    except BAD_CARD as error:
        raise ModelError(
            f"expected the sizes and words of an image-text model in {str(path)!r}, "
            f"got {reason(error)}; restore the file that was saved with the weights"
        ) from error
    if file_sha256(weights) != sha256:
        raise ModelError(
            f"expected the weights that {_CARD} in {str(folder)!r} is about, got "
            "others; restore the pair"
        )
    put_weights(model, found, path=weights)
    return model.eval()
