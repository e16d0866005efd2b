"""The image-text models of transformers as dual encoders, tokenizer and all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.files import atomic
from bezoar.models.clip_resnet import CLIP_MEAN, CLIP_STD
from bezoar.models.dual_encoder import DualEncoder, unit
from bezoar.models.huggingface import quietly, statistics_of
from bezoar.models.probe import check_weights, reason
from bezoar.shapes import Float, Int64

_PROCESSOR = "preprocessor_config.json"


class TransformersClip(DualEncoder):
    """A ``CLIPModel`` of transformers, and what belongs to it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        processor: Settings of its image processor; empty means those of CLIP.

    Attributes:
        model: The model inside.
        tokenizer: Its tokenizer.
        processor: Settings of its image processor.

    Raises:
        ModelError: If the tokenizer is not that of the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, processor: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.processor = dict(processor)
        text = self.clip.config.text_config
        _check_tokenizer(tokenizer, text)
        self.resolution = int(self.clip.config.vision_config.image_size)
        self.context_length = int(text.max_position_embeddings)
        mean, std = statistics_of(processor) if processor else (CLIP_MEAN, CLIP_STD)
        for name, values in (("mean", mean), ("std", std)):
            told = torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, told, persistent=False)

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
        """Return the parameters of the image tower and of its projection."""
        return [
            parameter
            for name, parameter in self.model.named_parameters()
            if name.startswith(("vision_model.", "visual_projection."))
        ]

    def tokenize(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids of captions; a text that is cut off still ends."""
        told = self.tokenizer(
            list(captions),
            truncation=True,
            max_length=self.context_length,
            padding="longest",
            return_tensors="pt",
        )
        ids: Tensor = told["input_ids"]
        end = self.tokenizer.eos_token_id
        unended = ~(ids == end).any(1)  # cut off without an end, it would be read amiss
        ids[unended, -1] = end
        return ids

    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images in [0, 1]."""
        shown = (self.fit(images) - self.mean) / self.std
        kind = self.log_scale.dtype
        return unit(_vectors(self.clip.get_image_features(pixel_values=shown.to(kind))))

    def encode_texts(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of texts.

        No mask is passed: the tower is causal and is read at the first end, so what
        follows has no influence, and no mask can be of a wrong type.
        """
        return unit(_vectors(self.clip.get_text_features(input_ids=ids)))

    def save(self, folder: Path) -> None:
        """Save model, tokenizer and processor as transformers does.

        Args:
            folder: Where to; files of the same names are replaced.
        """
        import transformers

        with quietly(transformers.utils.logging):
            self.clip.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        if self.processor:
            with atomic(folder / _PROCESSOR) as temporary:
                text = json.dumps(self.processor, indent=1)
                temporary.write_text(text + "\n", encoding="utf-8")


def load_transformers_clip(
    place: str, *, unsafe_pickle: bool = False
) -> TransformersClip:
    """Load an image-text model with transformers.

    Args:
        place: A folder with config.json and a tokenizer, or an id on the Hub. Code
            that comes with a model is never run.
        unsafe_pickle: Accept weights in a pickle, opened for tensors alone.

    Returns:
        The model in eval mode on the CPU.

    Raises:
        ModelError: If there is none, it is not a CLIP, a part of it has no trained
            weights, or the tokenizer is missing.
    """
    import transformers  # its import takes seconds

    is_local = Path(place).is_dir()
    try:
        with quietly(transformers.utils.logging), torch.random.fork_rng(devices=[]):
            loaded: Any = transformers.CLIPModel.from_pretrained(
                place,
                local_files_only=is_local,
                use_safetensors=None if unsafe_pickle else True,
                dtype=torch.float32,
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=is_local, trust_remote_code=False
            )
            processor = _processor(place, is_local=is_local)
    except Exception as error:
        raise ModelError(
            f"expected a CLIP model and its tokenizer in {place!r}, got "
            f"{reason(error)}; check the name, or give the folder that both were "
            "saved to"
        ) from error
    model, info = loaded
    untrained = [*info["missing_keys"], *info["mismatched_keys"]]
    if untrained:
        raise ModelError(
            f"expected trained weights for all of {place!r}, got none for "
            f"{untrained[0]!r}; give a CLIP with an image and a text tower"
        )
    check_weights(model)
    return TransformersClip(model, tokenizer, processor=processor).eval()


def _processor(place: str, *, is_local: bool) -> dict[str, Any]:
    from transformers.image_processing_base import ImageProcessingMixin

    if is_local and not (Path(place) / _PROCESSOR).is_file():
        return {}
    found, _ = ImageProcessingMixin.get_image_processor_dict(
        place, local_files_only=is_local
    )
    return dict(found)


def _check_tokenizer(tokenizer: Any, text: Any) -> None:
    # Where a tokenizer's files are missing, transformers makes one of two words.
    if len(tokenizer) != text.vocab_size:
        raise ModelError(
            f"expected a tokenizer with the model's {text.vocab_size} ids, got one of "
            f"{len(tokenizer)}; save the tokenizer in the folder of the model"
        )
    # 2 stands in old files, whose texts are read at their highest id.
    if text.eos_token_id not in (2, tokenizer.eos_token_id):
        raise ModelError(
            f"expected a tokenizer that ends texts with the id {text.eos_token_id} of "
            f"the model's config, got {tokenizer.eos_token_id}; save the tokenizer "
            "that it was trained with"
        )


def _vectors(output: Any) -> Tensor:
    # An object since transformers 5: its ``pooler_output`` is projected already.
    found: Tensor = getattr(output, "pooler_output", output)
    return found
