"""What layers of an encoder give, as maps over the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.wrap import tap
from bezoar.shapes import Float

_MOST_PREFIXES = 8  # class token and registers before the tokens of an image


@contextmanager
def tapped_maps(
    model: nn.Module, layers: Sequence[str]
) -> Iterator[Callable[[int], tuple[Tensor, ...]]]:
    """Read the outputs of several layers as maps while a model runs.

    Args:
        model: The model; the hooks are gone when the block ends.
        layers: Names of modules as in ``named_modules``.

    Yields:
        A function of the number of images shown that gives the maps of the latest
        forward pass, with gradient, one (b, c, h, w) for each layer.

    Example:
        >>> import torch
        >>> from bezoar.models.simclr import simclr
        >>> net = simclr("tiny").eval()
        >>> with tapped_maps(net, ["backbone.model.layer4"]) as maps:
        ...     _ = net(torch.zeros(2, 3, 16, 16))
        ...     maps(2)[0].shape
        torch.Size([2, 128, 2, 2])
    """
    with ExitStack() as stack:
        taps = [stack.enter_context(tap(model, layer)) for layer in layers]

        def maps(count: int) -> tuple[Tensor, ...]:
            return tuple(as_map(t.output, count=count, layer=t.layer) for t in taps)

        yield maps


def as_map(output: Tensor, *, count: int, layer: str) -> Float[Tensor, "b c h w"]:
    """Return what a layer gave for images as maps.

    Args:
        output: Maps (b, c, h, w), or tokens (b, n, c) or (n, b, c) of a square grid,
            perhaps with class token or registers before them, which are dropped.
        count: How many images were shown (b).
        layer: The layer's name, for the message.

    Returns:
        One map per image.

    Raises:
        ModelError: If it is neither.

    Example:
        >>> import torch
        >>> as_map(torch.zeros(2, 197, 8), count=2, layer="blocks.11").shape
        torch.Size([2, 8, 14, 14])
    """
    if output.ndim == 4 and len(output) == count:
        return output
    if output.ndim == 3:
        tokens = output if len(output) == count else output.transpose(0, 1)
        side = math.isqrt(tokens.shape[1])
        prefix = tokens.shape[1] - side**2
        if len(tokens) == count and side > 0 and prefix <= _MOST_PREFIXES:
            grid: Tensor = tokens[:, prefix:].transpose(1, 2)
            return grid.reshape(*grid.shape[:2], side, side)
    raise ModelError(
        f"expected a map or the tokens of a square grid for each of {count} images "
        f"from {layer!r}, got a tensor {tuple(output.shape)}; name another layer"
    )
