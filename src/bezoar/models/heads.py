"""Classifiers on the vectors of a frozen encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.models.initial import initialise
from bezoar.shapes import Float, Int64


class MLPHead(nn.Sequential):
    """Two hidden layers, as the downstream classifiers of BadEncoder have.

    Jia, Liu and Gong, BadEncoder, 2021, https://arxiv.org/abs/2108.00352.

    Args:
        num_features: Values of a vector.
        num_classes: Logits.
        hidden: Units of the first and of the second hidden layer.
        dropout: Share of units of the first layer dropped in training.
        seed: Seeds the weights.

    Example:
        >>> MLPHead(8, 3).eval()(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: tuple[int, int] = (512, 256),
        dropout: float = 0.5,
        seed: int = 0,
    ) -> None:
        with torch.device("meta"):
            super().__init__(
                nn.Linear(num_features, hidden[0]),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden[0], hidden[1]),
                nn.ReLU(),
                nn.Linear(hidden[1], num_classes),
            )
        initialise(self, seed=seed)


class NeighborHead(nn.Module):
    """Lets the nearest known vectors vote, each by the exponential of its cosine.

    Wu et al., 2018, https://arxiv.org/abs/1805.01978, section 3.4; a monitor, not a
    classifier to judge an encoder by.

    Args:
        vectors: The known vectors, of length 1.
        labels: Their classes.
        num_classes: Logits.
        num_neighbors: How many vote (k).
        temperature: Divides the cosines.
    """

    vectors: Tensor
    votes: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, "n d"],
        labels: Int64[Tensor, " n"],
        num_classes: int,
        *,
        num_neighbors: int = 200,
        temperature: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_neighbors = min(num_neighbors, len(vectors))
        self.temperature = temperature
        self.register_buffer("vectors", vectors)
        self.register_buffer("votes", functional.one_hot(labels, num_classes).float())

    def forward(self, vectors: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return the votes for each class."""
        cosines = vectors @ self.vectors.T
        nearest, places = cosines.topk(self.num_neighbors, dim=1)
        weights = (nearest / self.temperature).exp()
        return (weights[:, :, None] * self.votes[places]).sum(1)


def ridge_head(
    vectors: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    num_classes: int,
    *,
    ridge: float = 0.01,
) -> nn.Linear:
    """Fit a linear classifier by ridge regression on the classes, in closed form.

    Args:
        vectors: What the encoder makes of images.
        labels: Their classes.
        num_classes: Logits.
        ridge: Weight of the squared coefficients of standardised values, times n.

    Returns:
        The classifier; the standardisation is part of its weights.

    Example:
        >>> points = torch.eye(3).repeat(4, 1)
        >>> head = ridge_head(points, torch.arange(3).repeat(4), 3)
        >>> head(torch.eye(3)).argmax(1).tolist()
        [0, 1, 2]
    """
    rows = vectors.double()
    mean, std = rows.mean(0), rows.std(0, correction=0)
    std = torch.where(std > 1e-9, std, 1.0)  # a value that never changes tells nothing
    rows = (rows - mean) / std
    truth = functional.one_hot(labels, num_classes).double()
    centre = truth.mean(0)
    system = rows.T @ rows
    system.diagonal().add_(ridge * len(rows))
    weights = torch.linalg.solve(system, rows.T @ (truth - centre)) / std[:, None]
    head = nn.Linear(weights.shape[0], num_classes, device="meta").to_empty(
        device="cpu"
    )
    with torch.no_grad():
        head.weight.copy_(weights.T)
        head.bias.copy_(centre - mean @ weights)
    return head.requires_grad_(False)
