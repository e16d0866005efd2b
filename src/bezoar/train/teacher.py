"""A frozen encoder that a student is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import ModelError
from bezoar.models import frozen, frozen_folded
from bezoar.models.maps import tapped_maps
from bezoar.runtime import Runtime
from bezoar.shapes import Float, UInt8
from bezoar.train.attention_losses import attention_loss, attention_map, widened


class Teacher:
    """Features and attention maps of a frozen copy of an encoder.

    Args:
        encoder: Maps images in [0, 1] to vectors; it is copied, and left as it was.
        layers: Modules whose attention maps are wanted.
        power: Of the magnitudes in these maps.
        images: Stored images to follow a student on.
        runtime: Where and how to run.

    Attributes:
        layers: Modules whose attention maps it gives.
        net: The copy in eval mode, its batch norms folded.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        layers: Sequence[str],
        power: int,
        images: UInt8[Tensor, "n c h w"],
        runtime: Runtime,
    ) -> None:
        self.layers, self.power = tuple(layers), power
        self.runtime = runtime
        self.net = frozen_folded(
            encoder,
            device=runtime.device,
            dtype=runtime.compute_dtype(),
            images=images[:2].float() / 255,
            keep=self.layers,
        )
        self._images = images
        self._features, self._maps = self._watch(self.net)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b d"], tuple[Tensor, ...]]:
        """Return features of length 1 and attention maps, one for each layer.

        Args:
            images: In [0, 1], on the device.

        Returns:
            The features and the maps, without gradient.
        """
        with tapped_maps(self.net, self.layers) as maps:
            features = functional.normalize(widened(self.net(images)), dim=1)
            seen = maps(len(images))
        return features, tuple(attention_map(m, power=self.power) for m in seen)

    def follow(self, student: nn.Module) -> tuple[float, tuple[float, ...]]:
        """Return how closely a student follows, on the images as they are.

        Args:
            student: Maps images to vectors; it is left as it was.

        Returns:
            The mean cosine to the teacher's features, and the mean squared difference
            of the attention maps of each layer.
        """
        features, maps = self._watch(student)
        cosine = (features * self._features).sum(1).mean().item()
        apart = [attention_loss(m, t) for m, t in zip(maps, self._maps, strict=True)]
        return cosine, tuple(value.item() for value in apart)

    def _watch(self, net: nn.Module) -> tuple[Tensor, tuple[Tensor, ...]]:
        parts: list[tuple[Tensor, ...]] = []
        with tapped_maps(net, self.layers) as maps:

            def look(count: int) -> None:
                parts.append(
                    tuple(attention_map(m, power=self.power) for m in maps(count))
                )

            features = unit_features(
                net, self._images, runtime=self.runtime, after=look
            )
        return features, tuple(map(torch.cat, zip(*parts, strict=True)))


@torch.no_grad()
def unit_features(
    encoder: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    *,
    runtime: Runtime,
    after: Callable[[int], None] | None = None,
) -> Float[Tensor, "n d"]:
    """Return the features of stored images, brought to length 1.

    Args:
        encoder: Maps images in [0, 1] to vectors, on the runtime's device; it is lent
            in eval mode.
        images: The images.
        runtime: Where and how to run.
        after: Called after each batch with the number of its images.

    Returns:
        The features in float32, on the device.

    Raises:
        ModelError: If the encoder gives something else than a vector for each image.
    """
    dtype = runtime.compute_dtype()
    half, device = dtype.itemsize == 2, runtime.device
    rows = []
    with frozen(encoder), torch.autocast(device.type, dtype, enabled=half):
        for part in images.split(runtime.batch_size):
            shown = part.to(device).float() / 255
            shown = shown.contiguous(memory_format=torch.channels_last)
            vectors = encoder(shown)
            if not isinstance(vectors, Tensor) or vectors.ndim != 2:
                shape = tuple(getattr(vectors, "shape", ()))
                raise ModelError(
                    "expected an encoder that gives a vector for each image, got "
                    f"{type(vectors).__name__} {shape}; take off its head, or wrap it"
                )
            rows.append(functional.normalize(widened(vectors), dim=1))
            if after is not None:
                after(len(part))
    return torch.cat(rows)
