"""What every image-text model looks like from outside, whoever made it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.shapes import Float, Int64, UInt8

MAX_LOG_SCALE = 4.6052
"""Most that the log scale may be: ln 100, as in the published trainings."""


class DualEncoder(nn.Module, ABC):
    """An image tower and a text tower with one space of unit vectors.

    A module and not only a protocol: methods copy it, lend it and train it as they do
    with any network. Adapters wrap models of other libraries in it.

    Attributes:
        resolution: Height and width in pixels that the image tower takes.
        context_length: Most ids of a text.
    """

    resolution: int
    context_length: int

    @abstractmethod
    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images (f(v) in the papers).

        Args:
            images: Images in [0, 1] of any size; another size than ``resolution`` is
                changed to it. The model normalises them itself.

        Returns:
            One unit vector per image, float32.
        """

    @abstractmethod
    def encode_texts(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of texts (g(t) in the papers).

        Args:
            ids: What ``tokenize`` gave. Padding after the end has no influence.

        Returns:
            One unit vector per text, float32.
        """

    @abstractmethod
    def tokenize(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids of captions, no longer than the longest of them needs.

        Args:
            captions: At least one text; too long ones are cut, and keep their end.

        Returns:
            One row per caption, on the CPU.
        """

    @property
    @abstractmethod
    def log_scale(self) -> nn.Parameter:
        """Logarithm of the factor that cosines are multiplied by in the loss."""

    @abstractmethod
    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower, its projection included."""

    def fit(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c r r"]:
        """Return images at the model's resolution, the aspect ratio ignored.

        Args:
            images: Images in [0, 1].

        Returns:
            The same images where they have the size; else resized, bicubic.
        """
        size = (self.resolution, self.resolution)
        if images.shape[-2:] == size:
            return images
        resized = functional.interpolate(
            images, size=size, mode="bicubic", align_corners=False, antialias=True
        )
        return resized.clamp(0, 1)


def unit(vectors: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """Return vectors of length 1, in float32 whatever they came in.

    Args:
        vectors: One per row.

    Returns:
        The unit vectors.
    """
    return functional.normalize(vectors.float(), dim=1)


def distinct(captions: Sequence[str]) -> tuple[tuple[str, ...], Int64[Tensor, " n"]]:
    """Return each different caption once, and where to find that of each row.

    Args:
        captions: Texts, perhaps repeated.

    Returns:
        The different texts in the order of their first use, and one index per row.

    Example:
        >>> texts, index = distinct(["b", "a", "b"])
        >>> texts, index.tolist()
        (('b', 'a'), [0, 1, 0])
    """
    place: dict[str, int] = {}
    index = [place.setdefault(caption, len(place)) for caption in captions]
    return tuple(place), torch.tensor(index, dtype=torch.int64)


@torch.no_grad()
def embed_images(
    model: DualEncoder, images: UInt8[Tensor, "n c h w"], *, batch_size: int = 64
) -> Float[Tensor, "n e"]:
    """Return unit vectors of stored images, batch by batch.

    Args:
        model: In the mode that is wanted (``frozen`` lends it in eval mode); the
            images go to the device that it is on.
        images: Images as they are stored.
        batch_size: Images per forward pass.

    Returns:
        Unit vectors on the CPU.
    """
    device = model.log_scale.device
    return torch.cat(
        [
            model.encode_images(part.to(device).float() / 255).cpu()
            for part in images.split(batch_size)
        ]
    )


@torch.no_grad()
def embed_captions(
    model: DualEncoder, captions: Sequence[str], *, batch_size: int = 256
) -> Float[Tensor, "n e"]:
    """Return unit vectors of captions; each different one is encoded once.

    Captions are sorted by length first, so that short ones are not padded to long
    ones: with a causal tower that changes no vector, and saves most of the work.

    Args:
        model: In the mode that is wanted; the ids go to the device that it is on.
        captions: At least one text.
        batch_size: Texts per forward pass.

    Returns:
        Unit vectors on the CPU, one per caption.
    """
    texts, index = distinct(captions)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    device = model.log_scale.device
    parts = []
    for first in range(0, len(order), batch_size):
        batch = [texts[i] for i in order[first : first + batch_size]]
        parts.append(model.encode_texts(model.tokenize(batch).to(device)).cpu())
    sorted_vectors = torch.cat(parts)
    vectors = torch.empty_like(sorted_vectors)
    vectors[torch.tensor(order)] = sorted_vectors
    return vectors[index]


def pair_similarities(
    model: DualEncoder,
    images: UInt8[Tensor, "n c h w"],
    captions: Sequence[str],
    *,
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """Return the cosine of each image and its caption (s(v, t) in the papers).

    Args:
        model: In the mode that is wanted.
        images: Images as they are stored.
        captions: One per image.
        batch_size: Images per forward pass.

    Returns:
        Cosines in [-1, 1] on the CPU.
    """
    seen = embed_images(model, images, batch_size=batch_size)
    return (seen * embed_captions(model, captions)).sum(1)
