"""Pairs on the device for the steps of UBT: images, and texts encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.models import DualEncoder, distinct, embed_captions
from bezoar.shapes import Float, Int64


class Texts:
    """The texts of some pairs, as many for each, as vectors.

    While the text tower is not trained every different text is encoded once.

    Args:
        network: The model, on its device.
        texts: For each pair its texts.
        cached: Whether the text tower stays as it is.
    """

    def __init__(
        self, network: DualEncoder, texts: Sequence[Sequence[str]], *, cached: bool
    ) -> None:
        self._network = network
        flat = [text for own in texts for text in own]
        self._distinct, index = distinct(flat)
        self._index = index.view(len(texts), -1)
        self._vectors: Tensor | None = None
        if cached:
            device = network.log_scale.device
            self._vectors = embed_captions(network, self._distinct).to(device)

    def vectors(self, rows: Int64[Tensor, " b"]) -> Float[Tensor, "b a e"]:
        """Return unit vectors of the texts of some pairs.

        Args:
            rows: Places of the pairs, on the CPU.

        Returns:
            One vector per pair and text; on the graph if the text tower is trained.
        """
        wanted, inverse = self._index[rows].unique(return_inverse=True)
        if self._vectors is not None:
            device = self._vectors.device
            return self._vectors[wanted.to(device)][inverse.to(device)]
        ids = self._network.tokenize([self._distinct[i] for i in wanted.tolist()])
        device = self._network.log_scale.device
        return self._network.encode_texts(ids.to(device))[inverse.to(device)]


class Pairs:
    """Images and captions of some pairs on the device.

    Args:
        network: The model, on its device.
        data: All pairs.
        rows: Which of them.
        cached: Whether the text tower stays as it is.
        texts: For each of the rows its texts, in place of the caption.
    """

    def __init__(
        self,
        network: DualEncoder,
        data: PairData,
        rows: Int64[Tensor, " m"],
        *,
        cached: bool,
        texts: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self._network = network
        self._device = network.log_scale.device
        self.images = data.images[rows].to(self._device)
        if texts is None:
            texts = [(data.captions[row],) for row in rows.tolist()]
        self.texts = Texts(network, texts, cached=cached)

    def __len__(self) -> int:
        return len(self.images)

    def seen(self, rows: Int64[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images, on the graph.

        Args:
            rows: Places among these pairs, on the CPU.

        Returns:
            One vector per row.
        """
        shown = self.images[rows.to(self._device)].float() / 255
        return self._network.encode_images(shown)


def passes(
    total: int, batch_size: int, stream: torch.Generator
) -> Iterator[Int64[Tensor, " b"]]:
    """Yield batches of places, each place once before any comes again.

    Args:
        total: How many places there are.
        batch_size: Places per batch; fewer only where there are no more.
        stream: Where the order comes from.

    Yields:
        Places, without end.
    """
    size = min(total, batch_size)
    while True:
        order = torch.randperm(total, generator=stream)
        for first in range(0, total - size + 1, size):
            yield order[first : first + size]
