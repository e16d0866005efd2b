"""Images with captions in memory: what an image-text model is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bezoar.checks import check_images, check_labels, check_same_length
from bezoar.data.images import UNLABELLED, ImageData
from bezoar.errors import InputError
from bezoar.shapes import Bool, Float, Int64, UInt8


def _no_labels() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairData:
    """Images of one size, each with its caption.

    Attributes:
        images: Images as they are stored.
        captions: One text per image; the same text may come often.
        ids: A stable, unique name per pair.
        labels: Class indices, for those who measure with them; left out, or all -1
            (``UNLABELLED``), where there are none.
        class_names: Names by class index; empty where there are no labels.

    Example:
        >>> pairs = PairData(
        ...     images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        ...     captions=("a black square", "a dark square"),
        ...     ids=("0", "1"),
        ... )
        >>> len(pairs), pairs.is_labelled, pairs.labels.tolist()
        (2, False, [-1, -1])
    """

    images: UInt8[Tensor, "n c h w"]
    captions: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int64[Tensor, " _"] = field(default_factory=_no_labels)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images)
        if len(self.labels) == 0:
            unknown = torch.full((len(self.images),), UNLABELLED)
            object.__setattr__(self, "labels", unknown)  # frozen for everyone else
        check_same_length(self.images, self.labels, self.ids)
        check_labels(self.labels, num_classes=len(self.class_names))
        if len(self.captions) != len(self.images):
            raise InputError(
                f"expected one caption per image, got {len(self.images)} images and "
                f"{len(self.captions)} captions; give a text for each"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_labelled(self) -> bool:
        """Whether the pairs have labels."""
        return len(self.class_names) > 0

    @property
    def image_data(self) -> ImageData:
        """The images and labels without the captions; nothing is copied."""
        return ImageData(
            images=self.images,
            labels=self.labels,
            ids=self.ids,
            class_names=self.class_names,
        )

    def batches(
        self, size: int
    ) -> Iterator[tuple[tuple[str, ...], Float[Tensor, "b c h w"], tuple[str, ...]]]:
        """Iterate over ids, images in [0, 1] and captions.

        Args:
            size: Pairs per batch; the last batch may be smaller.

        Yields:
            The ids, the images and the captions of one batch.
        """
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield self.ids[part], self.images[part].float() / 255, self.captions[part]

    def subset(self, keep: Bool[Tensor, " n"]) -> PairData:
        """Return the pairs for which ``keep`` is True.

        Args:
            keep: One decision per pair.

        Returns:
            The pairs kept, in the order they had.
        """
        return self.take(keep.nonzero().flatten())

    def take(self, indices: Int64[Tensor, " m"]) -> PairData:
        """Return the pairs at ``indices``, in that order.

        Args:
            indices: Positions from 0 to n - 1, each at most once.

        Returns:
            The pairs taken.
        """
        rows = indices.tolist()
        return replace(
            self,
            images=self.images[indices],
            captions=tuple(self.captions[i] for i in rows),
            ids=tuple(self.ids[i] for i in rows),
            labels=self.labels[indices],
        )


def join_pairs(parts: Sequence[PairData]) -> PairData:
    """Return several sets of pairs as one.

    Args:
        parts: At least one set, all of one image size and the same classes.

    Returns:
        The pairs of all, in order.
    """
    return replace(
        parts[0],
        images=torch.cat([p.images for p in parts]),
        captions=tuple(c for p in parts for c in p.captions),
        ids=tuple(i for p in parts for i in p.ids),
        labels=torch.cat([p.labels for p in parts]),
    )
