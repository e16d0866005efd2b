"""The image-text models of open_clip as dual encoders; the library is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.clip_resnet import CLIP_MEAN, CLIP_STD
from bezoar.models.dual_encoder import DualEncoder, unit
from bezoar.models.huggingface import square_size
from bezoar.models.probe import reason
from bezoar.models.weights import put_weights, read_weights
from bezoar.shapes import Float, Int64


class OpenClip(DualEncoder):
    """A model of open_clip and its tokenizer.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        name: What open_clip calls its sizes.

    Attributes:
        model: The model inside.
        tokenizer: Its tokenizer.
        name: What open_clip calls its sizes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, tokenizer: Any, *, name: str) -> None:
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        visual: Any = model.visual
        self.resolution = square_size(visual.image_size) or 224
        self.context_length = int(getattr(self.clip, "context_length", 77))
        told = (
            ("mean", getattr(visual, "image_mean", None) or CLIP_MEAN),
            ("std", getattr(visual, "image_std", None) or CLIP_STD),
        )
        for buffer, values in told:
            tensor = torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(buffer, tensor, persistent=False)

    @property
    def clip(self) -> Any:
        """The model inside, whose type a module's attribute does not tell."""
        return self.model

    @property
    def log_scale(self) -> nn.Parameter:
        """Logarithm of the factor that cosines are multiplied by in the loss."""
        scale: nn.Parameter = self.clip.logit_scale
        return scale

    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""
        visual: nn.Module = self.clip.visual
        return list(visual.parameters())

    def tokenize(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids of captions, without the padding that all of them share."""
        ids: Tensor = self.tokenizer(list(captions))
        longest = int(ids.argmax(1).max()) + 1  # the end has the highest id
        return ids[:, :longest]

    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images in [0, 1]."""
        shown = (self.fit(images) - self.mean) / self.std
        return unit(self.clip.encode_image(shown.to(self.log_scale.dtype)))

    def encode_texts(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of texts; padded here, as open_clip wants all of it."""
        missing = self.context_length - ids.shape[1]
        whole = nn.functional.pad(ids, (0, missing))
        return unit(self.clip.encode_text(whole))

    def save(self, path: Path) -> None:
        """Save the weights, for ``open_clip:NAME@FILE``.

        Args:
            path: A file that ends in .safetensors.
        """
        tensors = {
            k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()
        }
        with atomic(path) as temporary:
            save_file(tensors, temporary)


def load_open_clip(
    name: str, weights: Path, *, unsafe_pickle: bool = False
) -> OpenClip:
    """Load an image-text model of open_clip from weights on disk.

    Args:
        name: What open_clip calls its sizes, such as "RN50" or "ViT-B-32".
        weights: The file; names with the prefix "module." are understood, and the
            state of an optimiser beside them is not looked at.
        unsafe_pickle: Open a pickle for tensors alone.

    Returns:
        The model in eval mode on the CPU.

    Raises:
        ModelError: If the library or the file is missing, or they do not fit.
    """
    try:
        library: Any = import_module("open_clip")
    except ImportError as error:
        raise ModelError(
            "expected the library open_clip for a model of that kind, got none; "
            "install bezoar[hub], or give a folder that transformers saved"
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):
            model = library.create_model(name)
        tokenizer = library.get_tokenizer(name)
    except Exception as error:
        raise ModelError(
            f"expected a model that open_clip knows, got {name!r} ({reason(error)}); "
            "see open_clip.list_models()"
        ) from error
    put_weights(model, read_weights(weights, unsafe_pickle=unsafe_pickle), path=weights)
    return OpenClip(model, tokenizer, name=name).eval()
