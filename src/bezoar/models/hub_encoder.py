"""Image encoders that transformers opens, and back to disk as it keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.clip_resnet import CLIP_MEAN, CLIP_STD
from bezoar.models.huggingface import quietly, size_of, statistics_of
from bezoar.models.probe import check_weights, reason
from bezoar.models.wrap import Normalized
from bezoar.shapes import Float

_PROCESSOR = "preprocessor_config.json"
_CLIP = ("clip", "clip_vision_model")


class HubEncoder(nn.Module):
    """A vision model of transformers that returns one vector per image.

    The vector is the projected one of a CLIP, else the pooled output, else the class
    token. A pooler without trained weights is left out.

    Attributes:
        model: The model inside.
        processor: Settings of its image processor.
    """

    def __init__(self, model: nn.Module, *, processor: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.processor = dict(processor)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the vectors of normalised images."""
        output = self.model(pixel_values=images)
        for name in ("image_embeds", "pooler_output"):
            found: Tensor | None = getattr(output, name, None)
            if found is not None:
                return found.flatten(1)
        hidden: Tensor = output.last_hidden_state
        return hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))

    def save(self, folder: Path) -> None:
        """Save model and processor as transformers does.

        Args:
            folder: Where to; files of the same names are replaced.
        """
        import transformers

        model: Any = self.model
        with quietly(transformers.utils.logging):
            model.save_pretrained(folder)
        with atomic(folder / _PROCESSOR) as temporary:
            text = json.dumps(self.processor, indent=1, default=str)
            temporary.write_text(text + "\n", encoding="utf-8")


def load_hub_encoder(place: str, *, unsafe_pickle: bool = False) -> Normalized:
    """Load an image encoder with transformers.

    Of a CLIP the image tower with its projection is taken, of a classifier what stands
    before its last layer. Code that comes with a model is never run.

    Args:
        place: A folder with config.json, or an id on the Hub.
        unsafe_pickle: Accept weights in a pickle, opened for tensors alone.

    Returns:
        The encoder with the normalisation of its image processor.

    Raises:
        ModelError: If there is none, or a part of it has no trained weights.
    """
    is_local = Path(place).is_dir()
    try:
        model, info, processor = _opened(
            place, is_local=is_local, unsafe_pickle=unsafe_pickle
        )
    except Exception as error:
        raise ModelError(
            "expected an image encoder and its preprocessor_config.json in "
            f"{place!r}, got {reason(error)}; check the name, or give the folder that "
            "both were saved to"
        ) from error
    untrained = [*info["missing_keys"], *info["mismatched_keys"]]
    if untrained and all(name.startswith("pooler.") for name in untrained):
        model.pooler, untrained = None, []
    if untrained:
        raise ModelError(
            f"expected trained weights for all of {place!r}, got none for "
            f"{untrained[0]!r}; give a model that was trained on images"
        )
    check_weights(model)
    mean, std = statistics_of(processor)
    return Normalized(
        HubEncoder(model, processor=processor),
        mean=mean,
        std=std,
        image_size=size_of(getattr(model.config, "image_size", None), processor),
    )


def _opened(
    place: str, *, is_local: bool, unsafe_pickle: bool
) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    import transformers  # its import takes seconds
    from transformers.image_processing_base import ImageProcessingMixin

    with quietly(transformers.utils.logging), torch.random.fork_rng(devices=[]):
        config = transformers.AutoConfig.from_pretrained(
            place, local_files_only=is_local, trust_remote_code=False
        )
        is_clip = config.model_type in _CLIP
        processor: Mapping[str, Any] = {
            "image_mean": list(CLIP_MEAN),
            "image_std": list(CLIP_STD),
        }
        if not is_clip or not is_local or (Path(place) / _PROCESSOR).is_file():
            processor, _ = ImageProcessingMixin.get_image_processor_dict(
                place, local_files_only=is_local
            )
        kind: Any = transformers.AutoModel
        if is_clip and "CLIPVisionModel" not in (config.architectures or ()):
            kind = transformers.CLIPVisionModelWithProjection
        model, info = kind.from_pretrained(
            place,
            local_files_only=is_local,
            use_safetensors=None if unsafe_pickle else True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if not hasattr(model.config, "num_channels") or model.main_input_name != (
        "pixel_values"
    ):
        raise ModelError(f"a {config.model_type}, which does not take images alone")
    return model, info, processor
