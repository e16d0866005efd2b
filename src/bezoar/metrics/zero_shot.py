"""Image-text models as classifiers: classes are texts.

``evaluate`` takes what ``zero_shot_classifier`` returns like any other classifier, and
so leaves images of the target class out of both counts of the attack success, gives
the accuracy on the target class, and the floor. (The released CleanCLIP evaluation
compares triggered images with their true labels; that of BadCLIP counts images of the
target class too.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bezoar.errors import InputError
from bezoar.models.dual_encoder import DualEncoder, embed_captions, unit
from bezoar.models.wrap import frozen
from bezoar.shapes import Float


class ZeroShot(nn.Module):
    """A classifier made of an image tower and one vector per class.

    Args:
        model: The image-text model.
        head: One unit vector per class.
        class_names: Names of the classes; empty where they have none.

    Attributes:
        model: The image-text model; it is not copied.
        image_size: Height and width that its image tower takes.
        class_names: Names of the classes.
    """

    head: Tensor

    def __init__(
        self,
        model: DualEncoder,
        head: Float[Tensor, "k e"],
        *,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size = model.resolution
        self.class_names = tuple(class_names)
        self.register_buffer("head", head)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Return the logits: scaled cosines of images in [0, 1] and classes."""
        cosines = self.model.encode_images(images) @ self.head.float().T
        return self.model.log_scale.float().exp() * cosines


def zero_shot_head(
    model: DualEncoder, prompts: Sequence[Sequence[str]], *, batch_size: int = 256
) -> Float[Tensor, "k e"]:
    """Return one unit vector per class: the mean of its prompts' unit vectors.

    Args:
        model: The image-text model; it is lent in eval mode and left as it was.
        prompts: For each class its texts, at least one.
        batch_size: Texts per forward pass.

    Returns:
        Unit vectors on the CPU.

    Raises:
        InputError: If there is no class, or one without a prompt.
    """
    if not prompts or not all(prompts) or any(isinstance(p, str) for p in prompts):
        raise InputError(
            "expected a list of prompts for each class, got "
            f"{[p if isinstance(p, str) else len(p) for p in prompts][:8]}; give at "
            'least one text for each, such as [["a photo of a cat"], ...]'
        )
    texts = [text for own in prompts for text in own]
    with frozen(model):
        vectors = embed_captions(model, texts, batch_size=batch_size)
    parts = vectors.split([len(own) for own in prompts])
    return unit(torch.stack([part.mean(0) for part in parts]))


def zero_shot_classifier(
    model: DualEncoder,
    prompts: Sequence[Sequence[str]],
    *,
    class_names: Sequence[str] = (),
    prefix: str = "",
) -> ZeroShot:
    """Return an image-text model as a classifier, for ``evaluate`` and detectors.

    Args:
        model: The image-text model; it is not copied.
        prompts: For each class its texts.
        class_names: Names of the classes.
        prefix: Put before every prompt: the word of an attack that has one.

    Returns:
        The classifier; its logits are in the order of the prompts.

    Example:
        >>> from bezoar.data import digit_pairs, digit_prompts
        >>> from bezoar.metrics import evaluate
        >>> from bezoar.models import TinyClip, WordTokenizer
        >>> pairs = digit_pairs("test", num_pairs=8)
        >>> words = WordTokenizer.from_captions(sum(digit_prompts(), ()))
        >>> model = TinyClip(words, resolution=24)
        >>> classifier = zero_shot_classifier(model, digit_prompts())
        >>> evaluate(classifier, pairs.image_data).num_clean
        8
    """
    texts = [[prefix + text for text in own] for own in prompts]
    return ZeroShot(model, zero_shot_head(model, texts), class_names=class_names)
