"""First weights of networks, drawn from a seed and from nothing else.

He et al., Delving Deep into Rectifiers, 2015, arXiv:1502.01852, equation 14.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from bezoar.errors import ModelError
from bezoar.models.room import fill
from bezoar.runtime import generator

_PLAIN = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)  # reset without a random number
_SPREAD = 0.02  # deviation of embeddings and tokens


def initialise(network: nn.Module, *, seed: int) -> None:
    """Give a network that was built on the meta device its first weights.

    Convolutions get the normal distribution of the paper with the fan of the output,
    linear layers the uniform one of width 1 / sqrt(fan in), batch norms 1 and 0.

    Args:
        network: A network of convolutions, batch norms and linear layers.
        seed: Seeds the weights; the global random state stays as it was.
    """
    fill(network)
    _draw(network, seed=seed)


def reinitialised(model: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy of a model that has learnt nothing.

    Args:
        model: Any model of convolutions, linear layers, embeddings and norms; it is
            left as it was.
        seed: Seeds the weights; the global random state stays as it was.

    Returns:
        The copy. Buffers that no norm owns, such as a normalisation, are kept.

    Raises:
        ModelError: If a module has weights of its own that this cannot draw.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
        >>> fresh = reinitialised(net, seed=0)
        >>> bool(fresh[0].weight.equal(net[0].weight))
        False
    """
    known = (_ConvNd, nn.Linear, nn.Embedding, *_PLAIN)
    for name, module in model.named_modules():
        if not isinstance(module, known) and list(module.parameters(recurse=False)):
            raise ModelError(
                "expected a model of convolutions, linear layers, embeddings and "
                f"norms, got {type(module).__name__} as {name!r} with weights of its "
                "own; build a fresh model and use train_classifier"
            )
    fresh = copy.deepcopy(model)
    _draw(fresh, seed=seed)
    return fresh


@torch.no_grad()
def emptied(model: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy of any model with other weights in every place.

    Layers are drawn as in ``reinitialised``; what no such layer owns, as a class token
    or embeddings of positions, comes from a normal distribution of deviation 0.02.

    Args:
        model: Any model; it is left as it was.
        seed: Seeds the weights; the global random state stays as it was.

    Returns:
        The copy, on the CPU. Buffers that no norm owns are kept.

    Example:
        >>> net = nn.Module()
        >>> net.token = nn.Parameter(torch.ones(3))
        >>> bool((emptied(net, seed=0).token == 1).any())
        False
    """
    fresh = copy.deepcopy(model).cpu()
    _draw(fresh, seed=seed)
    stream = generator(seed, "tokens")
    known = (_ConvNd, nn.Linear, nn.Embedding, *_PLAIN)
    for module in fresh.modules():
        if not isinstance(module, known):
            for parameter in module.parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=stream)
                parameter.copy_(_SPREAD * drawn)
    return fresh


@torch.no_grad()
def _draw(network: nn.Module, *, seed: int) -> None:
    stream = generator(seed, "weights")
    for module in network.modules():
        if isinstance(module, _ConvNd):
            _draw_convolution(module, stream)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            module.weight.copy_(_uniform(module.weight, bound, stream))
            if module.bias is not None:
                module.bias.copy_(_uniform(module.bias, bound, stream))
        elif isinstance(module, nn.Embedding):
            drawn = torch.randn(module.weight.shape, generator=stream)
            module.weight.copy_(_SPREAD * drawn)
        elif isinstance(module, _PLAIN):
            module.reset_parameters()


def _draw_convolution(module: _ConvNd, stream: torch.Generator) -> None:
    drawn = torch.empty(module.weight.shape)
    nn.init.kaiming_normal_(
        drawn, mode="fan_out", nonlinearity="relu", generator=stream
    )
    module.weight.copy_(drawn)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _uniform(like: torch.Tensor, bound: float, stream: torch.Generator) -> torch.Tensor:
    return torch.empty(like.shape).uniform_(-bound, bound, generator=stream)
