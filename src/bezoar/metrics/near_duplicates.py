"""Images that show the same: found by a short key, confirmed by a small picture.

The key is a perceptual hash: the signs of the lowest frequencies of the brightness,
which survive another encoding, size or brightness. Keys that nearly agree only make a
pair a candidate; small pictures in colour decide, for on many sets (skies, studio
shots, digits) keys of different images do agree. The hash is our own, in the manner of
those that keep the signs of a cosine transform (Zauner, 2010).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bezoar.errors import InputError
from bezoar.shapes import Int64, UInt8

SIDE = 32  # images are compared at this height and width
_LOW, _SMALL = 8, 8  # lowest frequencies and small picture, per side
_BANDS, _BITS = 4, 16
MAX_BITS = _BANDS - 1  # by the pigeonhole rule: one band of the two keys is equal
_REACH = 64  # neighbours that a key is compared with where one band is very common
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """What images look like, in little.

    Attributes:
        keys: The perceptual hash, 64 bits.
        pictures: The image in 8x8 pixels.
    """

    keys: Int64[Tensor, " n"]
    pictures: UInt8[Tensor, "n c 8 8"]


def looks(images: UInt8[Tensor, "n c h w"]) -> Looks:
    """Return what images look like, in little.

    Args:
        images: Images of 32x32 pixels with three channels.

    Returns:
        Keys and small pictures.

    Raises:
        InputError: If the images have another size.
    """
    if images.shape[1:] != (3, SIDE, SIDE):
        raise InputError(
            f"expected images of 3x{SIDE}x{SIDE}, got {tuple(images.shape[1:])}; "
            "resize them first"
        )
    values = images.float()
    light = torch.einsum("nchw,c->nhw", values, torch.tensor(_LUMA))
    wave = _cosines()
    low = (wave @ light @ wave.T).flatten(1)[:, 1:]  # without the mean
    # The last bit says whether the image is dark: 63 signs alone leave a bit over.
    signs = torch.cat([low > 0, light.mean((1, 2))[:, None] > 127.5], 1)
    powers = torch.tensor([1 << i for i in range(63)] + [-(1 << 63)])
    keys = torch.where(signs, powers, 0).sum(1)
    pictures = functional.avg_pool2d(values, SIDE // _SMALL).round().byte()
    return Looks(keys=keys, pictures=pictures)


def near_pairs(
    found: Looks,
    *,
    max_difference: float = 10.0,
    max_shift: float = 24.0,
    min_correlation: float = 0.95,
) -> Int64[Tensor, "p 2"]:
    """Return the pairs of images that show the same.

    Where thousands of keys share a quarter of their bits, each is compared with its
    next neighbours only, so that the work stays in proportion to the images; some
    pairs of such a crowd are then missed.

    Args:
        found: What the images look like.
        max_difference: Mean absolute difference of the small pictures, each less its
            mean, in grey levels, up to which two show the same.
        max_shift: Difference of the means up to which they do: one may be brighter.
        min_correlation: Least correlation of the small pictures, so that two pale
            images are not taken for one.

    Returns:
        Positions of the pairs, the smaller first, each pair once.
    """
    keys = found.keys.numpy().view(np.uint64)
    flat = found.pictures.flatten(1).numpy()
    kept = [np.empty((0, 2), np.int64)]
    for candidates in _candidates(keys):
        apart = np.bitwise_count(keys[candidates[:, 0]] ^ keys[candidates[:, 1]])
        pairs = candidates[apart <= MAX_BITS]
        left = flat[pairs[:, 0]].astype(np.float32)
        right = flat[pairs[:, 1]].astype(np.float32)
        shift = left.mean(1, keepdims=True) - right.mean(1, keepdims=True)
        close = np.abs(left - right - shift).mean(1) <= max_difference
        close &= np.abs(shift[:, 0]) <= max_shift
        same = close & (_correlation(left, right) >= min_correlation)
        kept.append(np.sort(pairs[same], 1))
    return torch.from_numpy(np.unique(np.concatenate(kept), axis=0))


def groups(pairs: Int64[Tensor, "p 2"], num_images: int) -> list[list[int]]:
    """Return what hangs together by pairs.

    Args:
        pairs: Positions.
        num_images: How many images there are.

    Returns:
        Groups of two or more positions in order, the groups by their first.

    Example:
        >>> groups(torch.tensor([[0, 3], [3, 4]]), 6)
        [[0, 3, 4]]
    """
    root = list(range(num_images))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for a, b in pairs.tolist():
        first, second = sorted((find(a), find(b)))
        root[second] = first
    members: dict[int, list[int]] = {}
    for i in sorted(set(pairs.flatten().tolist())):
        members.setdefault(find(i), []).append(i)
    return [members[i] for i in sorted(members)]


def _cosines() -> Tensor:
    place = (torch.arange(SIDE) + 0.5) * math.pi / SIDE
    return torch.cos(torch.arange(_LOW)[:, None] * place)


def _candidates(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    # Pairs with an equal band, at growing distance in the order of that band.
    for band in range(_BANDS):
        part = (keys >> np.uint64(band * _BITS)) & np.uint64((1 << _BITS) - 1)
        order = np.lexsort((keys, part))
        part = part[order]
        for step in range(1, _REACH + 1):
            equal = np.flatnonzero(part[step:] == part[:-step])
            if len(equal) == 0:
                break
            yield np.stack([order[equal], order[equal + step]], 1)


def _correlation(
    left: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    left = left - left.mean(1, keepdims=True)
    right = right - right.mean(1, keepdims=True)
    both = np.sqrt((left**2).sum(1) * (right**2).sum(1))
    # Two even areas have no correlation, and show the same.
    together = (left * right).sum(1) / np.maximum(both, 1e-6)
    result: NDArray[np.float32] = np.where(both < 1e-6, np.float32(1), together)
    return result
