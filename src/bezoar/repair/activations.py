"""What a frozen encoder's layers give for images that are shown many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.models import frozen_folded
from bezoar.models.maps import tapped_maps
from bezoar.runtime import Runtime
from bezoar.shapes import UInt8
from bezoar.train import widened

_MOST_BYTES = 2 << 30


class Shown(NamedTuple):
    """What an encoder makes of a batch of images.

    Attributes:
        activations: Of each layer, flattened, in float32.
        features: At length 1, in float32.
    """

    activations: tuple[Tensor, ...]
    features: Tensor


class Activations:
    """Activations and features of images, computed once if they fit into 2 GiB.

    Args:
        encoder: Maps images in [0, 1] to vectors; it is copied, and left as it was.
        images: Stored images.
        layers: Modules whose outputs are wanted.
        pool: Largest side of a map, averaged down to it; None keeps maps as they are.
        batch_size: Images in a batch; the last may be smaller.
        runtime: Where and how to run.
        most_bytes: Room for what is kept; beyond it each pass computes anew.

    Attributes:
        cached: Whether they are kept.
    """

    def __init__(
        self,
        encoder: nn.Module,
        images: UInt8[Tensor, "n c h w"],
        *,
        layers: Sequence[str],
        pool: int | None,
        batch_size: int,
        runtime: Runtime,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._net = frozen_folded(
            encoder,
            device=runtime.device,
            dtype=runtime.compute_dtype(),
            images=images[:2].float() / 255,
            keep=tuple(layers),
        )
        self._layers, self._pool = tuple(layers), pool
        self._parts = images.to(runtime.device).split(batch_size)
        first = self._show(self._parts[0])
        values = (
            sum(a[0].numel() for a in first.activations) + first.features[0].numel()
        )
        self.cached = 4 * values * len(images) <= most_bytes
        self._kept = tuple(map(self._show, self._parts)) if self.cached else ()

    def __iter__(self) -> Iterator[Shown]:
        """Go over the batches.

        Returns:
            The batches in the order of the images.
        """
        return iter(self._kept) if self.cached else map(self._show, self._parts)

    @torch.no_grad()
    def _show(self, stored: Tensor) -> Shown:
        images = (stored.float() / 255).contiguous(memory_format=torch.channels_last)
        with tapped_maps(self._net, self._layers) as maps:
            features = functional.normalize(widened(self._net(images)), dim=1)
            seen = maps(len(images))
        return Shown(tuple(map(self._flat, seen)), features)

    def _flat(self, maps: Tensor) -> Tensor:
        wide = widened(maps)
        if self._pool is not None:
            height, width = (min(side, self._pool) for side in wide.shape[2:])
            wide = functional.adaptive_avg_pool2d(wide, (height, width))
        return wide.flatten(1).contiguous()
