"""A small convolutional network for quick trainings on small images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bezoar.models.initial import initialise
from bezoar.shapes import Float


class ConvNet(nn.Module):
    """Five stages of 3x3 convolution, batch norm and ReLU; then mean and linear.

    The last stage sees the whole of a 32x32 image, so that a small part of it can
    decide, as in the deep networks that this one stands in for.

    Args:
        num_classes: Logits per image.
        in_channels: Channels of the images.
        width: Channels of the first stage; the next have 2, 4, 4 and 4 times as many.
        seed: Seeds the first weights.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        width: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # no weights are drawn from the global stream
            self.stage1 = _stage(in_channels, width, stride=1)
            self.stage2 = _stage(width, 2 * width, stride=2)
            self.stage3 = _stage(2 * width, 4 * width, stride=2)
            self.stage4 = _stage(4 * width, 4 * width, stride=2)
            self.stage5 = _stage(4 * width, 4 * width, stride=1)
            self.fc = nn.Linear(4 * width, num_classes)
        initialise(self, seed=seed)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the vectors before the last linear layer.

        Args:
            images: Normalised images.

        Returns:
            Means over space of the last feature map.
        """
        x = self.stage3(self.stage2(self.stage1(images)))
        pooled: Tensor = self.stage5(self.stage4(x)).mean(dim=(2, 3))
        return pooled

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def convnet(
    num_classes: int,
    *,
    in_channels: int = 3,
    width: int = 32,
    seed: int = 0,
) -> ConvNet:
    """Build a small convolutional network.

    Args:
        num_classes: Logits per image.
        in_channels: Channels of the images.
        width: Channels of the first stage; the next have 2, 4, 4 and 4 times as many.
        seed: Seeds the first weights.

    Returns:
        The untrained network.

    Example:
        >>> net = convnet(10)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return ConvNet(num_classes, in_channels=in_channels, width=width, seed=seed)


def _stage(channels: int, width: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(
        OrderedDict(conv=conv, bn=nn.BatchNorm2d(width), relu=nn.ReLU(inplace=True))
    )
