"""Encoders with a projector, as contrastive pre-training makes them.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations
(SimCLR), 2020, https://arxiv.org/abs/2002.05709. Sizes and first weights are those
that BadEncoder (2021, https://arxiv.org/abs/2108.00352) and MIMIC (2024,
https://arxiv.org/abs/2406.03508) use for small images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import ModelError
from bezoar.models.initial import initialise
from bezoar.models.resnet import BasicBlock, ResNet
from bezoar.models.wrap import Normalized
from bezoar.runtime import generator
from bezoar.shapes import Float

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)

_SIZES: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    # blocks in each layer, channels of the first, values of a projection
    "resnet18": ((2, 2, 2, 2), 64, 128),
    "tiny": ((1, 1, 1, 1), 16, 64),
}


class Encoded(NamedTuple):
    """What an encoder with a projector gives for images.

    Attributes:
        features: Vectors of the backbone at length 1 (z in the papers).
        projections: What the projector makes of the vectors before they were brought
            to length 1, itself at length 1 (p).
    """

    features: Tensor
    projections: Tensor


class SimCLR(nn.Module):
    """A backbone and a projector behind it.

    ``backbone`` may be any encoder that maps images in [0, 1] to vectors, so that a
    foreign one is trained or distilled with a fresh projector in the same way.

    Attributes:
        backbone: Images in [0, 1] to vectors, not at length 1 (f in the papers).
        projector: Vectors to projections (g).

    Example:
        >>> net = simclr("tiny")
        >>> z, p = net.eval()(torch.zeros(2, 3, 16, 16))
        >>> z.shape, p.shape
        (torch.Size([2, 128]), torch.Size([2, 64]))
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Float[Tensor, "b c h w"]) -> Encoded:
        """Return features and projections, both of length 1, in float32 at least."""
        vectors: Tensor = self.backbone(images)
        return Encoded(
            functional.normalize(_wide(vectors), dim=1),
            functional.normalize(_wide(self.projector(vectors)), dim=1),
        )


def simclr(
    name: str = "resnet18",
    *,
    image_size: int | None = None,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
) -> SimCLR:
    """Build an untrained encoder with its projector.

    Convolutions are drawn from the normal distribution of He et al., but the first
    one, as the linear layers, uniformly up to 1 / sqrt(fan in): the published encoders
    replace the first convolution after the others were drawn.

    Args:
        name: "resnet18" for 32x32 images (no max pooling, 512 values), or "tiny" for
            16x16 (one block a layer, 128 values).
        image_size: Height and width in pixels; None takes 32 and 16.
        mean: Per channel, subtracted from images in [0, 1].
        std: Per channel, divides afterwards.
        seed: Seeds the weights; the global random state stays as it was.

    Returns:
        The network.

    Raises:
        ModelError: If there is no encoder of this name.

    Example:
        >>> sum(p.numel() for p in simclr("resnet18").backbone.parameters())
        11168832
    """
    if name not in _SIZES:
        raise ModelError(
            f"expected one of {', '.join(_SIZES)}, got {name!r}; "
            "choose one of them, or wrap an encoder of your own in SimCLR"
        )
    depths, width, projection_size = _SIZES[name]
    net = ResNet(BasicBlock, depths, 1, width=width, in_channels=len(mean), seed=seed)
    num_features = net.fc.in_features
    net.fc = nn.Identity()  # type: ignore[assignment]
    bound = 1 / math.sqrt(net.conv1.weight[0].numel())
    with torch.no_grad():
        net.conv1.weight.uniform_(-bound, bound, generator=generator(seed, "stem"))
    backbone = Normalized(
        net,
        mean=mean,
        std=std,
        image_size=image_size or {"resnet18": 32, "tiny": 16}[name],
    )
    return SimCLR(
        backbone, projector(num_features, projection_size=projection_size, seed=seed)
    )


def projector(
    num_features: int, *, projection_size: int = 128, seed: int = 0
) -> nn.Sequential:
    """Build an untrained projector.

    Args:
        num_features: Values of a vector of the backbone.
        projection_size: Values of a projection.
        seed: Seeds the weights.

    Returns:
        Linear layer without bias, batch norm, ReLU, linear layer.

    Example:
        >>> projector(8, projection_size=4).eval()(torch.zeros(2, 8)).shape
        torch.Size([2, 4])
    """
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Linear(num_features, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(inplace=True),
            nn.Linear(num_features, projection_size),
        )
    initialise(net, seed=seed)
    return net


def backbone_of(encoder: nn.Module) -> nn.Module:
    """Return the part of an encoder that maps images to vectors.

    Args:
        encoder: A ``SimCLR``, or any module from images in [0, 1] to vectors.

    Returns:
        The backbone of a ``SimCLR``, which shares its weights; else what was given.
        Its vectors are not at length 1.

    Example:
        >>> net = simclr("tiny")
        >>> backbone_of(net) is net.backbone, backbone_of(net.backbone) is net.backbone
        (True, True)
    """
    return encoder.backbone if isinstance(encoder, SimCLR) else encoder


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
