"""Where a search for a trigger had best begin: windows that make images look alike.

From masks that cover all of an image the descent often ends in a patch that merely
fools the network, and passes by a small trigger in one corner. So a window is laid
over the images at each place of a grid, its colours are fitted in a few steps, and the
search begins at those under which images look most alike. Ours; not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bezoar.detect.trigger_inversion import opaque, pairwise_cosine, stamped
from bezoar.shapes import Float

_PLACES = 7  # along each side
_SHARE = 1 / 3  # of a side: any trigger of up to a quarter of it is covered by one
_STEPS, _LR, _SHOWN = 20, 0.5, 8
_INSIDE, _OUTSIDE = 1.5, -2.0  # raw: opaque to 95 and 2 %


def windows(height: int, width: int) -> Float[Tensor, "w h w2"]:
    """Return masks of 1 in a window and 0 elsewhere, at each place of a grid.

    Args:
        height: Of the images.
        width: Of the images.

    Returns:
        The masks; the outermost windows end at the edges.

    Example:
        >>> windows(32, 32).shape, windows(32, 32)[0].sum().item()
        (torch.Size([49, 32, 32]), 121.0)
    """
    found = []
    for top in _places(height):
        for left in _places(width):
            mask = torch.zeros(height, width)
            mask[top : top + _size(height), left : left + _size(width)] = 1
            found.append(mask)
    return torch.stack(found)


def window_starts(
    encoder: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    *,
    count: int,
    most_images: int,
    stream: torch.Generator,
) -> tuple[Float[Tensor, "r h w"], Float[Tensor, "r c h w"]]:
    """Return starts for a search, from the windows that make images most alike.

    Args:
        encoder: From images in [0, 1] to vectors, without weight gradients.
        images: On the encoder's device.
        count: How many windows.
        most_images: Images that are shown to the encoder at a time, at most.
        stream: Where first colours and batches come from.

    Returns:
        Raw masks and patterns: before their bounds are applied.
    """
    masks = windows(images.shape[2], images.shape[3]).to(images.device)
    size = min(_SHOWN, len(images))
    colours = torch.randn(len(masks), *images.shape[1:], generator=stream) * 0.1
    rows = torch.stack(
        [torch.randperm(len(images), generator=stream)[:size] for _ in range(_STEPS)]
    ).to(images.device)
    fitted, alike = [], []
    at_once = max(1, most_images // size)
    drawn = colours.to(images.device).split(at_once)
    for part, first in zip(masks.split(at_once), drawn, strict=True):
        raw = first.clone().requires_grad_()
        adam = torch.optim.Adam([raw], lr=_LR)
        for picked in rows:
            shown = stamped(images[picked], part, opaque(raw))
            vectors = encoder(shown).float().unflatten(0, (len(part), size))
            cosines = pairwise_cosine(vectors)
            (raw.grad,) = torch.autograd.grad(-cosines.sum(), raw)
            adam.step()
        fitted.append(raw.detach())
        alike.append(cosines.detach())
    best = torch.cat(alike).topk(min(count, len(masks))).indices
    chosen = masks[best]
    raw_masks = chosen * (_INSIDE - _OUTSIDE) + _OUTSIDE
    return raw_masks, torch.cat(fitted)[best]


def images_scanned(shape: Sequence[int]) -> int:
    """Return how many images ``window_starts`` shows to an encoder.

    Args:
        shape: Of the images it gets, NCHW.

    Returns:
        Windows times steps times images under each.
    """
    count, _, height, width = shape
    places = len(_places(height)) * len(_places(width))
    return places * _STEPS * min(_SHOWN, count)


def _size(side: int) -> int:
    return max(1, round(_SHARE * side))


def _places(side: int) -> list[int]:
    last = side - _size(side)
    return sorted({round(last * i / (_PLACES - 1)) for i in range(_PLACES)})
