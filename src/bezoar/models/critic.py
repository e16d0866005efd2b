"""The network that tells pairs which belong together from pairs which do not.

Belghazi et al., Mutual Information Neural Estimation (MINE), 2018,
https://arxiv.org/abs/1801.04062, equation 10 ("statistics network").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.runtime import generator
from bezoar.shapes import Float, Int64


class Critic(nn.Module):
    """Three linear layers on an activation and a feature (T in the papers).

    The first layer on the two joined together, ``W [a, z]``, is ``W_a a + W_z z``. The
    long product ``W_a a`` is the same for a pair that belongs together and for one
    that does not, and is computed once; no joined copy is made.

    Args:
        num_activations: Values of an activation.
        num_features: Values of a feature.
        hidden: Values between the layers.
        seed: Seeds the weights, drawn as torch draws those of the joined layer.

    Example:
        >>> critic = Critic(6, 4, hidden=8, seed=0)
        >>> a, z = torch.zeros(3, 6), torch.zeros(3, 4)
        >>> joint, marginal = critic(a, z, torch.tensor([1, 2, 0]))
        >>> joint.equal(marginal), joint.shape
        (True, torch.Size([3]))
    """

    def __init__(
        self, num_activations: int, num_features: int, *, hidden: int = 512, seed: int
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            self.of_activation = nn.Linear(num_activations, hidden)
            self.of_feature = nn.Linear(num_features, hidden, bias=False)
            self.middle = nn.Linear(hidden, hidden)
            self.last = nn.Linear(hidden, 1)
        self.to_empty(device="cpu")
        stream = generator(seed, "critic")
        joined = 1 / math.sqrt(num_activations + num_features)
        inner = 1 / math.sqrt(hidden)
        with torch.no_grad():
            for parameter in (*self.of_activation.parameters(), self.of_feature.weight):
                parameter.uniform_(-joined, joined, generator=stream)
            for layer in (self.middle, self.last):
                for parameter in layer.parameters():
                    parameter.uniform_(-inner, inner, generator=stream)

    def forward(
        self,
        activations: Float[Tensor, "b a"],
        features: Float[Tensor, "b d"],
        order: Int64[Tensor, " b"],
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return one value for each pair.

        Args:
            activations: Of a layer, for a batch of images.
            features: Of the same images.
            order: A permutation of the batch (pi).

        Returns:
            ``T(a_i, z_i)`` and ``T(a_i, z_order(i))``.
        """
        shared = self.of_activation(activations)
        own = self.of_feature(features)
        return self._rest(shared + own), self._rest(shared + own[order])

    def _rest(self, first: Tensor) -> Tensor:
        hidden = functional.relu(self.middle(functional.relu(first)))
        values: Tensor = self.last(hidden)
        return values[:, 0]
