"""First weights of our networks, drawn from a seed and from nothing else.

He et al., Delving Deep into Rectifiers, 2015, arXiv:1502.01852, equation 14.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.runtime import generator


def initialise(network: nn.Module, *, seed: int) -> None:
    """Give a network that was built on the meta device its first weights.

    Convolutions get the normal distribution of the paper with the fan of the output,
    linear layers the uniform one of width 1 / sqrt(fan in), batch norms 1 and 0.

    Args:
        network: A network of convolutions, batch norms and linear layers.
        seed: Seeds the weights; the global random state stays as it was.
    """
    network.to_empty(device="cpu")
    stream = generator(seed, "weights")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight,
                mode="fan_out",
                nonlinearity="relu",
                generator=stream,
            )
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=stream)
                module.bias.uniform_(-bound, bound, generator=stream)
        elif isinstance(module, _BatchNorm):
            module.reset_parameters()
