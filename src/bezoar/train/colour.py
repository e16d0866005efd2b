"""Random changes of colour, for a batch of images at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from bezoar.shapes import Float

_LUMA = (0.299, 0.587, 0.114)
_HUE = 3  # place of the hue among the four changes


def to_grey(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return images without their colours.

    Args:
        images: Images in [0, 1].

    Returns:
        The luma of each pixel in all three channels.
    """
    return luma(images).expand(-1, 3, -1, -1)


def luma(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the brightness of each pixel, as television weighs the channels.

    Args:
        images: Images in [0, 1].

    Returns:
        ``0.299 red + 0.587 green + 0.114 blue``.
    """
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def jitter(
    images: Float[Tensor, "b 3 h w"],
    stream: torch.Generator,
    *,
    strengths: tuple[float, float, float, float],
    rate: float,
) -> Float[Tensor, "b 3 h w"]:
    """Change brightness, contrast, saturation and hue in an order of chance.

    The first three are mixtures with black, with the mean luma and with the grey image,
    so that a step is one mixture for all images, whichever of the three each is at;
    the hue is turned only in those images whose turn it is.

    Args:
        images: Images in [0, 1].
        stream: Where the changes come from.
        strengths: Greatest change of brightness, contrast and saturation as a share,
            and of the hue in turns.
        rate: Share of images that are changed.

    Returns:
        Images in [0, 1].
    """
    count = len(images)
    drawn = torch.rand(count, 4, generator=stream) * 2 - 1
    orders = torch.rand(count, 4, generator=stream).argsort(1)
    changes = drawn * torch.tensor(strengths)
    is_changed = torch.rand(count, generator=stream) < rate
    changes[~is_changed] = 0
    changed = images.clone()
    for step in range(4):
        what = orders[:, step]
        change = changes.gather(1, what[:, None])[:, 0]
        factor = torch.where(what == _HUE, 0.0, change) + 1
        changed = _mixed(changed, factor, what)
        rows = ((what == _HUE) & is_changed).nonzero().flatten().to(images.device)
        turn = changes[:, _HUE].to(images.device)[rows]
        if strengths[_HUE] > 0:
            changed = changed.index_copy(0, rows, turned(changed[rows], turn))
    return changed


def turned(
    images: Float[Tensor, "b 3 h w"], turns: Float[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """Turn the hue of images.

    Args:
        images: Images in [0, 1].
        turns: How far to turn each; 1 is all the way round.

    Returns:
        Images of the same value and saturation.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> turned(red, torch.tensor([1 / 3])).flatten().round().abs().tolist()
        [0.0, 1.0, 0.0]
    """
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    safe = chroma.clamp(min=1e-12)
    # Sixths of a turn from red, by which channel is the greatest.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turns[:, None, None]
    sectors = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    place = (hue[:, None] + sectors) % 6
    fall = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[:, None] - chroma[:, None] * fall


def _mixed(images: Tensor, factor: Tensor, what: Tensor) -> Tensor:
    # what: 0 mixes with black, 1 with the mean luma, 2 with the luma; factor 1 keeps.
    grey = luma(images)
    device = images.device
    kind = what.to(device)[:, None, None, None]
    other = torch.where(kind == 1, grey.mean((2, 3), keepdim=True), grey)
    other = torch.where(kind == 0, torch.zeros_like(grey), other)
    share = factor.to(device)[:, None, None, None]
    return (images * share + other * (1 - share)).clamp(0, 1)
