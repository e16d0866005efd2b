"""The small square that BadNets and the label-consistent attack stamp on images."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_choice, check_size
from bezoar.errors import InputError
from bezoar.shapes import Int64, UInt8

Pattern = Literal["official", "checker", "white"]


def check_patch(*, size: int, offset: tuple[int, int], pattern: str) -> None:
    """Check the settings of a patch.

    Args:
        size: Side in pixels.
        offset: Pixels between the patch and the lower and the right edge.
        pattern: Name of the pattern.

    Raises:
        InputError: If one is out of range.
    """
    check_choice("pattern", pattern, get_args(Pattern))
    least = 3 if pattern == "official" else 1
    if size < least:
        raise InputError(
            f"expected a size of at least {least} for the {pattern} pattern, got "
            f"{size}; give a larger size or another pattern"
        )
    if min(offset) < 0:
        raise InputError(
            f"expected an offset of at least 0 pixels, got {offset}; "
            "it counts from the lower right corner inwards"
        )


def square(*, size: int, pattern: Pattern) -> UInt8[Tensor, "size size"]:
    """Return a black and white square.

    Args:
        size: Side in pixels; at least 3 for the official pattern.
        pattern: "official" has white in the lower left, the middle and the upper
            right third; "checker" has white corners; "white" is all white.

    Returns:
        Grey levels 0 and 255.

    Example:
        >>> square(size=3, pattern="official").tolist()
        [[0, 0, 255], [0, 255, 0], [255, 255, 0]]
    """
    patch = torch.zeros(size, size, dtype=torch.uint8)
    if pattern == "white":
        patch.fill_(255)
    elif pattern == "checker":
        patch[::2, ::2] = 255
        patch[1::2, 1::2] = 255
    else:
        third, two_thirds = size // 3, 2 * size // 3
        patch[two_thirds:, :two_thirds] = 255
        patch[third:two_thirds, third:two_thirds] = 255
        patch[:third, two_thirds:] = 255
    return patch


def corner(
    shape: tuple[int, int, int], *, size: int, offset: tuple[int, int]
) -> Int64[Tensor, " 2"]:
    """Return the row and the column of a patch's upper left pixel.

    Args:
        shape: Channels, height and width of the images.
        size: Side of the patch in pixels.
        offset: Pixels between the patch and the lower and the right edge.

    Returns:
        Row and column.
    """
    _, height, width = shape
    return torch.tensor([height - size - offset[0], width - size - offset[1]])


def stamp(
    images: UInt8[Tensor, "n c h w"],
    *,
    size: int,
    offset: tuple[int, int],
    pattern: Pattern,
) -> UInt8[Tensor, "n c h w"]:
    """Return images with a square in place of the pixels below it.

    Args:
        images: Images as they are stored; they stay as they are.
        size: Side of the square in pixels.
        offset: Pixels between the square and the lower and the right edge.
        pattern: What the square shows, in all channels.

    Returns:
        New images.
    """
    check_size(
        images,
        height=size + offset[0],
        width=size + offset[1],
        what=f"a {size}x{size} patch at offset {offset}",
    )
    _, channels, height, width = images.shape
    row, column = corner((channels, height, width), size=size, offset=offset).tolist()
    stamped = images.clone()
    stamped[:, :, row : row + size, column : column + size] = square(
        size=size, pattern=pattern
    ).to(images.device)
    return stamped
