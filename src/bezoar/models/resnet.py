"""Residual networks with the stem for small or for large images.

He et al., Deep Residual Learning for Image Recognition, 2016, arXiv:1512.03385. Names
of weights are those of public ResNet files. As in these files, the bottleneck strides
in its 3x3 convolution; the paper strides in the 1x1 before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.models.initial import initialise
from bezoar.shapes import Float

Stem = Literal["cifar", "imagenet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    expansion = 1

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, size=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride=stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the block's feature map."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out + shortcut)
        return result


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, and a shortcut around them."""

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        wide = self.expansion * width
        self.conv1 = _conv(channels, width, size=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, size=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, wide, size=1)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, wide, stride=stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the block's feature map."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out + shortcut)
        return result


class ResNet(nn.Module):
    """A residual network; the functions below build the published sizes.

    Args:
        block: What the four layers are made of.
        depths: Blocks in each of the four layers.
        num_classes: Logits per image.
        stem: "cifar" keeps the resolution; "imagenet" divides it by 4.
        width: Channels of the first layer; each later layer has twice as many.
        in_channels: Channels of the images.
        seed: Seeds the first weights.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int,
        *,
        stem: Stem = "cifar",
        width: int = 64,
        in_channels: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # no weights are drawn from the global stream
            if stem == "cifar":
                self.conv1 = _conv(in_channels, width, size=3)
            else:
                self.conv1 = _conv(in_channels, width, size=7, stride=2)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.Identity() if stem == "cifar" else _pool()
            wide = block.expansion * width
            self.layer1 = _layer(block, width, width, depths[0], stride=1)
            self.layer2 = _layer(block, wide, 2 * width, depths[1], stride=2)
            self.layer3 = _layer(block, 2 * wide, 4 * width, depths[2], stride=2)
            self.layer4 = _layer(block, 4 * wide, 8 * width, depths[3], stride=2)
            self.fc = nn.Linear(8 * wide, num_classes)
        initialise(self, seed=seed)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the vectors before the last linear layer.

        Args:
            images: Normalised images.

        Returns:
            Means over space of the last feature map.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits."""
        logits: Tensor = self.fc(self.features(images))
        return logits


def resnet18(
    num_classes: int,
    *,
    stem: Stem = "cifar",
    width: int = 64,
    in_channels: int = 3,
    seed: int = 0,
) -> ResNet:
    """Build a ResNet-18.

    Args:
        num_classes: Logits per image.
        stem: "cifar" for images up to about 64 pixels, "imagenet" above.
        width: Channels of the first layer; 64 in the paper.
        in_channels: Channels of the images.
        seed: Seeds the first weights.

    Returns:
        The untrained network.

    Example:
        >>> net = resnet18(10)
        >>> sum(p.numel() for p in net.parameters())
        11173962
    """
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes,
        stem=stem,
        width=width,
        in_channels=in_channels,
        seed=seed,
    )


def resnet34(
    num_classes: int,
    *,
    stem: Stem = "cifar",
    width: int = 64,
    in_channels: int = 3,
    seed: int = 0,
) -> ResNet:
    """Build a ResNet-34.

    Args:
        num_classes: Logits per image.
        stem: "cifar" for images up to about 64 pixels, "imagenet" above.
        width: Channels of the first layer; 64 in the paper.
        in_channels: Channels of the images.
        seed: Seeds the first weights.

    Returns:
        The untrained network.

    Example:
        >>> resnet34(2, width=8).fc.in_features
        64
    """
    return ResNet(
        BasicBlock,
        (3, 4, 6, 3),
        num_classes,
        stem=stem,
        width=width,
        in_channels=in_channels,
        seed=seed,
    )


def resnet50(
    num_classes: int,
    *,
    stem: Stem = "cifar",
    width: int = 64,
    in_channels: int = 3,
    seed: int = 0,
) -> ResNet:
    """Build a ResNet-50.

    Args:
        num_classes: Logits per image.
        stem: "cifar" for images up to about 64 pixels, "imagenet" above.
        width: Channels of the first layer's 3x3 convolutions; 64 in the paper.
        in_channels: Channels of the images.
        seed: Seeds the first weights.

    Returns:
        The untrained network.

    Example:
        >>> resnet50(2, width=8).fc.in_features
        256
    """
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes,
        stem=stem,
        width=width,
        in_channels=in_channels,
        seed=seed,
    )


def _layer(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    depth: int,
    *,
    stride: int,
) -> nn.Sequential:
    first = block(channels, width, stride=stride)
    rest = [block(block.expansion * width, width, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(channels: int, wide: int, *, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == wide:
        return None  # the input itself is added
    return nn.Sequential(
        _conv(channels, wide, size=1, stride=stride), nn.BatchNorm2d(wide)
    )


def _conv(channels: int, wide: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    kind = _Thin if size == 1 and stride > 1 and channels < _FEW else nn.Conv2d
    return kind(channels, wide, size, stride=stride, padding=size // 2, bias=False)


class _Thin(nn.Conv2d):
    # On processors with AVX2 and nothing newer, torch 2.13 writes beyond its memory
    # when it computes the weight gradient of a strided 1x1 convolution of few channels
    # in channels_last. Taking the places first gives the same numbers without it.
    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.stride
        return functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


_FEW = 8


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
