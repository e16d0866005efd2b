"""Image classifiers that transformers opens, with the statistics of their processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.probe import check_weights, reason
from bezoar.models.wrap import Normalized
from bezoar.shapes import Float


class Logits(nn.Module):
    """A model of transformers that returns its logits and nothing else.

    Attributes:
        model: The model inside.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits for normalised images."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def from_transformers(place: str, *, unsafe_pickle: bool) -> tuple[Normalized, int]:
    """Load an image classifier with transformers.

    Code that comes with a model is never run, and a pickle is opened only on request,
    by torch's reader for tensors alone.

    Args:
        place: A folder with config.json, or an id on the Hub.
        unsafe_pickle: Accept weights in a pickle.

    Returns:
        The classifier with the normalisation of its image processor, and its number
        of classes.

    Raises:
        ModelError: If there is none, or a part of it has no trained weights.
    """
    is_folder = Path(place).is_dir()
    if is_folder and not (Path(place) / "config.json").is_file():
        raise ModelError(
            f"expected a model in the folder {place!r}, got neither model.json nor "
            "config.json in it; give the folder that the model was saved to"
        )
    try:
        model, info, processor = _loaded(
            place, local_files_only=is_folder, unsafe_pickle=unsafe_pickle
        )
    except Exception as error:
        raise ModelError(
            "expected an image classifier and its preprocessor_config.json in "
            f"{place!r}, got {reason(error)}; check the name, or give the folder that "
            "both were saved to"
        ) from error
    untrained = [*info["missing_keys"], *info["mismatched_keys"]]
    if untrained:
        raise ModelError(
            f"expected trained weights for all of {place!r}, got none for "
            f"{untrained[0]!r}; give a model that was trained to classify images"
        )
    check_weights(model)
    mean, std = statistics_of(processor)
    count = int(model.config.num_labels)
    classifier = Normalized(
        Logits(model),
        mean=mean,
        std=std,
        image_size=size_of(getattr(model.config, "image_size", None), processor),
        class_names=[str(model.config.id2label.get(i, i)) for i in range(count)],
    )
    return classifier, count


def square_size(size: Any) -> int | None:
    """Return the side of a square image.

    Args:
        size: What a library tells as the size of images: a number or two of them.

    Returns:
        The side in pixels, or None where it is another shape or is not told.
    """
    if isinstance(size, tuple | list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    return size if isinstance(size, int) else None


def _loaded(
    place: str, *, local_files_only: bool, unsafe_pickle: bool
) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    import transformers  # its import takes seconds
    from transformers.image_processing_base import ImageProcessingMixin

    with quietly(transformers.utils.logging), torch.random.fork_rng(devices=[]):
        processor, _ = ImageProcessingMixin.get_image_processor_dict(
            place, local_files_only=local_files_only
        )
        model, info = transformers.AutoModelForImageClassification.from_pretrained(
            place,
            local_files_only=local_files_only,
            trust_remote_code=False,
            use_safetensors=None if unsafe_pickle else True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    return model, info, processor


@contextmanager
def quietly(log: Any) -> Iterator[None]:
    """Keep transformers from writing bars, and warnings of what becomes our error.

    Args:
        log: Its logging module.

    Yields:
        Nothing; its settings are put back at the end.
    """
    level, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if has_bars:
            log.enable_progress_bar()


def statistics_of(processor: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return the statistics of an image processor, for images in [0, 1].

    Args:
        processor: Its settings.

    Returns:
        Means and standard deviations by channel.

    Raises:
        ModelError: If they are not told.
    """
    # Its own scale goes from 0 to ``gain``.
    gain = 255 * processor.get("rescale_factor", 1 / 255)
    if not processor.get("do_rescale", True):
        gain = 255.0
    if not processor.get("do_normalize", True):
        return [0.0], [1 / gain]
    means, stds = processor.get("image_mean"), processor.get("image_std")
    if not (isinstance(means, list) and isinstance(stds, list)):
        raise ModelError(
            "expected lists image_mean and image_std in preprocessor_config.json, got "
            f"{means!r} and {stds!r}; save the image processor with its statistics"
        )
    return [mean / gain for mean in means], [std / gain for std in stds]


def size_of(size: object, processor: Mapping[str, Any]) -> int | None:
    """Return the side of the images that a model takes.

    Args:
        size: What its settings tell.
        processor: Settings of its image processor.

    Returns:
        The side in pixels, or None where neither tells one.
    """
    told = [size]
    for name in ("crop_size", "size"):
        value = processor.get(name)
        if isinstance(value, Mapping):
            edge = value.get("shortest_edge")
            value = [value.get("height", edge), value.get("width", edge)]
        told.append(value)
    return next((s for s in map(square_size, told) if s is not None), None)
