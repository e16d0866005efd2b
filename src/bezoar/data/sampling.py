"""A few images out of many, drawn by content: order, format and company do not matter.

Every image has a keyed hash, and the sample holds those with the smallest ones, so
that two people who store the same images differently draw the same sample. Labels take
turns: first the smallest hash of each label, then the second of each, and so on. Equal
images with equal labels count once, or a picture that comes a thousand times would
either fill the sample or miss it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bezoar.data.images import ImageData, content_keys
from bezoar.errors import EmptyError, InputError
from bezoar.shapes import UInt8

_Key = tuple[str, int]  # hash and label: one picture


@dataclass(kw_only=True)
class Sampler:
    """Draws a sample from blocks of images, in memory for the sample and one block.

    An image that was left out never comes back: later images can only move it further
    down. So blocks may come in any size and order.

    Attributes:
        num_images: How many images to draw, at least 1.
        seed: Another seed draws another sample.
    """

    num_images: int
    seed: int
    _drawn: dict[_Key, tuple[str, Tensor]] = field(default_factory=dict, init=False)
    _class_names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise InputError(
                f"expected a sample of at least 1 image, got {self.num_images}; draw "
                "more"
            )

    def add(self, data: ImageData) -> None:
        """Take one block of images into account.

        Args:
            data: Images of the same size and classes as those of the other blocks.
        """
        known = dict(self._drawn)
        hashes = _hashes(data.images, seed=self.seed)
        labels = data.labels.tolist()
        # By image: a heap of hashes and copies, about 1 ms for a block of 1000.
        for digest, label, name, image in zip(
            hashes, labels, data.ids, data.images, strict=True
        ):
            key = digest, label
            if key not in known or name < known[key][0]:
                known[key] = name, image
        chosen = _in_turn(known)[: self.num_images]
        # Copies: a view of one image would keep the whole block in memory.
        self._drawn = {key: (known[key][0], known[key][1].clone()) for key in chosen}
        self._class_names = data.class_names

    def result(self) -> ImageData:
        """Return the sample.

        Returns:
            Up to ``num_images`` different images, in the order of their hashes.

        Raises:
            EmptyError: If there was no image to draw from.
        """
        if not self._drawn:
            raise EmptyError(
                "expected images to draw a sample from, got none that can be read; "
                "check the path and the format"
            )
        keys = sorted(self._drawn)
        return ImageData(
            images=torch.stack([self._drawn[key][1] for key in keys]),
            labels=torch.tensor([label for _, label in keys]),
            ids=tuple(self._drawn[key][0] for key in keys),
            class_names=self._class_names,
        )


def sample_images(data: ImageData, num_images: int, *, seed: int) -> ImageData:
    """Draw a sample that depends on the images and the seed, not on their order.

    Args:
        data: Where to draw from.
        num_images: How many images to draw; below 1 is an ``InputError``.
        seed: Another seed draws another sample.

    Returns:
        Up to ``num_images`` different images, as many of each label as can be, in the
        order of their hashes.

    Example:
        >>> from bezoar.data import noise_images
        >>> sample = sample_images(noise_images(100), 10, seed=0)
        >>> len(sample), sample.labels.bincount()
        (10, tensor([5, 5]))
    """
    sampler = Sampler(num_images=num_images, seed=seed)
    sampler.add(data)
    return sampler.result()


def _hashes(images: UInt8[Tensor, "n c h w"], *, seed: int) -> tuple[str, ...]:
    return tuple(
        hashlib.blake2b(
            repr((seed, "sample", key)).encode(), digest_size=16
        ).hexdigest()
        for key in content_keys(images)
    )


def _in_turn(keys: Iterable[_Key]) -> list[_Key]:
    turns: Counter[int] = Counter()
    order = []
    for digest, label in sorted(keys):
        order.append((turns[label], digest, label))
        turns[label] += 1
    return [(digest, label) for _, digest, label in sorted(order)]
