"""Where an encoder can be tapped: four stages from shallow to deep."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bezoar.errors import ModelError
from bezoar.models.wrap import unwrapped

_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_LISTS = ("blocks", "layer", "layers", "resblocks", "stages", "features")


def stage_names(model: nn.Module) -> tuple[str, ...]:
    """Name the modules whose outputs are the four stages of an encoder.

    Args:
        model: A ResNet, a vision transformer or another network whose depth is a list
            of blocks, perhaps inside a ``Normalized``, a ``SimCLR`` or other wrappers.

    Returns:
        Four names as in ``named_modules``, shallow first: the four layers of a
        ResNet, or the blocks at 1/4, 2/4, 3/4 and 4/4 of the depth.

    Raises:
        ModelError: If neither is found.

    Example:
        >>> from bezoar.models.simclr import simclr
        >>> stage_names(simclr("tiny"))[0]
        'backbone.model.layer1'
    """
    core = unwrapped(model)
    for name, module in core.named_modules():
        children = dict(module.named_children())
        if all(layer in children for layer in _LAYERS):
            return tuple(_joined(name, layer) for layer in _LAYERS)
    for name, module in core.named_modules():
        if _is_depth(name, module):
            return _quarters(name, list(dict(module.named_children())))
    raise ModelError(
        f"expected a ResNet or a list of blocks in {type(core).__name__}, got neither; "
        "name the modules to tap"
    )


def _is_depth(name: str, module: nn.Module) -> bool:
    # Blocks that follow one another: at least four, all of one kind.
    if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) < 4:
        return False
    is_named = name.rpartition(".")[2] in _LISTS
    return is_named and len({type(block) for block in module}) == 1


def _quarters(name: str, blocks: Sequence[str]) -> tuple[str, ...]:
    count = len(blocks)
    places = [round(count * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    return tuple(_joined(name, blocks[place]) for place in places)


def _joined(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child
