"""An energy network: a number per image, low where images are likely.

The network of PureEBM (Bhat et al., 2024, https://arxiv.org/abs/2405.19376) and its
ancestors: the discriminator of SNGAN without spectral or batch norm. The text of
PureGen (https://arxiv.org/abs/2405.18627) says generator, its code builds this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import ModelError
from bezoar.models.room import fill
from bezoar.runtime import generator
from bezoar.shapes import Float

MAX_FILTERS, MAX_PATCH = 1024, 8


class EnergyNet(nn.Module):
    """Four residual blocks, two of which halve the image, a mean and a weighted sum.

    Energies have no zero: compare those of one network alone. A batch may have any
    height and width from twice ``4 * patch_size`` on; sides that are no multiple of it
    are filled up by reflection. The sum over space is a mean, hence a network that was
    trained on small images slopes less on large ones; ``drift_scale`` undoes that.

    Args:
        num_filters: Channels of every layer (nf in the paper's code).
        patch_size: Side of the squares of pixels that become channels first; 2 makes
            a network four times as fast.
        in_channels: Channels of the images.
        image_size: Height and width that it is trained on.
        seed: Seeds the first weights.

    Attributes:
        card: What is known about the training: data, settings, curves, quantiles of
            clean energies; stored beside the weights. Empty for a new network.

    Example:
        >>> net = EnergyNet(num_filters=8)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        *,
        num_filters: int = 128,
        patch_size: int = 1,
        in_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(num_filters, patch_size, in_channels, image_size)
        self.num_filters, self.patch_size = num_filters, patch_size
        self.in_channels, self.image_size = in_channels, image_size
        self.card: Mapping[str, object] = {}
        width, first = num_filters, in_channels * patch_size**2
        with torch.device("meta"):  # no weights are drawn from the global stream
            self.block1 = _Block(first, width, shortcut=True)
            self.block2 = _Block(width, width, shortcut=True)
            self.block3 = _Block(width, width, shortcut=False)
            self.block4 = _Block(width, width, shortcut=False)
            self.head = nn.Linear(width, 1, bias=False)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        fill(self)
        stream = generator(seed, "weights")
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=stream)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def folded(self, dtype: torch.dtype = torch.float32) -> FoldedEnergy:
        """Return the layers with pooling folded into the convolutions; exact.

        The mean over 2x2 pixels after a 3x3 convolution is one 4x4 convolution of
        stride 2, whose kernel is the 3x3 one convolved with a box: 1.66 times fewer
        multiplications. That before a 1x1 convolution is one of 2x2. Gradients reach
        the weights of the network through both.

        Args:
            dtype: Type to compute in.

        Returns:
            The layers in the order of use.
        """
        layers: list[tuple[Tensor, Tensor | None]] = []
        for block in (self.block1, self.block2, self.block3, self.block4):
            first, second, short = block.conv1, block.conv2, block.shortcut
            kernel = second.weight
            if short is not None:  # and the block halves the image
                bordered = functional.pad(kernel, (1,) * 4)
                kernel = functional.avg_pool2d(bordered, 2, stride=1)
            layers += [(first.weight, first.bias), (kernel, second.bias)]
            if short is not None:
                box = (short.weight / 4).expand(-1, -1, 2, 2)
                layers.append((box, short.bias))
        return FoldedEnergy(
            kernels=tuple(_laid_out(kernel, dtype) for kernel, _ in layers),
            biases=tuple(bias.to(dtype) for _, bias in layers if bias is not None),
            head=self.head.weight[0].float(),
            patch_size=self.patch_size,
        )

    def drift_scale(self, height: int, width: int) -> float:
        """Return what slopes are multiplied by so that a pixel drifts as in training.

        Args:
            height: Of the images at hand.
            width: Of the images at hand.

        Returns:
            Their area, filled up to a multiple of ``4 * patch_size``, over the area
            of the training images.
        """
        step = 4 * self.patch_size
        area = math.ceil(height / step) * math.ceil(width / step) * step**2
        return area / (self.image_size[0] * self.image_size[1])

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return the energies of images in [0, 1]."""
        return self.folded()(2 * images - 1)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if shortcut else None


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedEnergy:
    """The layers of an ``EnergyNet``, ready for a chain; works on [-1, 1].

    Attributes:
        kernels: Of the ten convolutions in the order of use.
        biases: One for each kernel.
        head: Weights of the last sum, float32.
        patch_size: Side of the squares that become channels.
    """

    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    head: Tensor
    patch_size: int

    def detached(self, device: torch.device | None = None) -> FoldedEnergy:
        """Return the same layers without a way back to the network's weights.

        Args:
            device: Where to put them; None leaves them.

        Returns:
            Layers for chains.
        """
        return replace(
            self,
            kernels=tuple(kernel.detach().to(device) for kernel in self.kernels),
            biases=tuple(bias.detach().to(device) for bias in self.biases),
            head=self.head.detach().to(device),
        )

    def __call__(self, states: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return the energies E(x), float32.

        Args:
            states: Images in [-1, 1], or a chain that left it.

        Returns:
            One energy per image.
        """
        filled = _filled(states, 4 * self.patch_size)
        return self.of_squares(self.squares(filled.to(self.kernels[0].dtype)))

    def squares(self, states: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return images as the first layer takes them: squares of pixels as channels.

        Args:
            states: Images whose sides are multiples of ``patch_size``.

        Returns:
            The same values, channels last in memory.
        """
        if self.patch_size > 1:
            states = functional.pixel_unshuffle(states, self.patch_size)
        return states.contiguous(memory_format=torch.channels_last)

    def images(self, squares: Float[Tensor, "b d i j"]) -> Float[Tensor, "b c h w"]:
        """Return what ``squares`` took apart.

        Args:
            squares: As that returned them.

        Returns:
            Images, contiguous in memory.
        """
        return functional.pixel_shuffle(squares, self.patch_size).contiguous()

    def of_squares(self, squares: Float[Tensor, "b d i j"]) -> Float[Tensor, " b"]:
        """Return the energies of images that were taken apart, float32.

        Args:
            squares: As ``squares`` returned them; sides are multiples of 4.

        Returns:
            One energy per image.
        """
        conv = functional.conv2d
        k, b = self.kernels, self.biases
        x = squares.to(k[0].dtype)
        main = conv(conv(x, k[0], b[0], padding=1).relu_(), k[1], b[1], 2, 1)
        x = main.add_(conv(x, k[2], b[2], 2))
        main = conv(conv(x.relu(), k[3], b[3], padding=1).relu_(), k[4], b[4], 2, 1)
        x = main.add_(conv(x, k[5], b[5], 2))
        for i in (6, 8):
            main = conv(x.relu(), k[i], b[i], padding=1).relu_()
            x = conv(main, k[i + 1], b[i + 1], padding=1).add_(x)
        pooled = x.relu().float().mean(dim=(2, 3))
        return pooled @ self.head

    def slope(
        self, states: Float[Tensor, "b d i j"], *, in_squares: bool = False
    ) -> Float[Tensor, "b d i j"]:
        """Return the gradient of each image's energy to the image.

        Args:
            states: Images in [-1, 1], or what ``squares`` made of them.
            in_squares: Which of the two they are.

        Returns:
            The slopes in type and layout of the states; weights take no gradient.
        """
        inputs = states.detach().requires_grad_()
        with torch.enable_grad():
            total = (self.of_squares if in_squares else self)(inputs).sum()
        (slope,) = torch.autograd.grad(total, inputs)
        return slope


def energy_gradient(
    net: EnergyNet, states: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Return the slope that a chain follows, corrected for the size of the images.

    Args:
        net: The energy.
        states: Images in [-1, 1].

    Returns:
        Gradients of the energies, times ``drift_scale``.
    """
    height, width = states.shape[2:]
    return net.folded().detached().slope(states) * net.drift_scale(height, width)


def _laid_out(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    return kernel.to(dtype).contiguous(memory_format=torch.channels_last)


def _filled(states: Tensor, step: int) -> Tensor:
    rows, columns = (-size % step for size in states.shape[2:])
    if rows == columns == 0:
        return states
    return functional.pad(states, (0, columns, 0, rows), mode="reflect")


def _check_sizes(
    num_filters: int, patch_size: int, in_channels: int, image_size: tuple[int, int]
) -> None:
    step = 4 * patch_size
    if not 1 <= num_filters <= MAX_FILTERS or not 1 <= patch_size <= MAX_PATCH:
        raise ModelError(
            f"expected num_filters from 1 to {MAX_FILTERS} and patch_size from 1 to "
            f"{MAX_PATCH}, got {num_filters} and {patch_size}; such as 32 and 2"
        )
    if in_channels < 1 or min(image_size) < 2 * step:
        raise ModelError(
            f"expected images of at least {2 * step}x{2 * step} pixels and 1 channel "
            f"for a patch_size of {patch_size}, got {image_size} and {in_channels}; "
            "lower patch_size or give larger images"
        )
