"""A small UNet that tells noise from image: the denoiser of a diffusion model.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020,
https://arxiv.org/abs/2006.11239, in plain modules and in the sizes of PureGen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import ModelError
from bezoar.models.room import fill
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

_PRESETS = {
    "s": (32, 32, 64, 64, 128, 128),
    "m": (64, 64, 128, 128, 256, 256),
    "l": (128, 128, 256, 256, 512, 512),
}
_GROUPS = 32
_MOST_BLOCKS = 100  # a number in a file must not keep us building


class UNet(nn.Module):
    """Predicts the noise in an image from the image and the level of its noise.

    Levels of halved images with residual blocks, and as many back up that also see
    what the way down saw. Attention stands in the middle alone: at 32 pixels the fifth
    level of the published network, which has it too, is 2x2.

    Args:
        channels: Of each level, multiples of 4; all but the last are halved.
        num_blocks: Residual blocks of a level.
        in_channels: Channels of the images.
        seed: Seeds the first weights.

    Attributes:
        num_levels: How many levels of noise it was trained on.
        card: What is known about the training.

    Example:
        >>> net = UNet(channels=(8, 8), num_blocks=1)
        >>> net(torch.zeros(2, 3, 16, 16), torch.tensor([0, 5])).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...] = _PRESETS["m"],
        num_blocks: int = 2,
        in_channels: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (
            len(channels) < 2
            or not 1 <= num_blocks <= _MOST_BLOCKS
            or any(c < 4 or c % 4 for c in channels)
        ):
            raise ModelError(
                "expected two or more levels whose channels are multiples of 4 and at "
                f"least 1 block, got {channels} and {num_blocks}; such as (32, 64)"
            )
        self.channels, self.num_blocks = tuple(channels), num_blocks
        self.in_channels = in_channels
        self.num_levels = 250
        self.card: Mapping[str, object] = {}
        width = 4 * channels[0]
        with torch.device("meta"):  # no weights are drawn from the global stream
            self.time = nn.Sequential(
                nn.Linear(channels[0], width), nn.SiLU(), nn.Linear(width, width)
            )
            self.first = nn.Conv2d(in_channels, channels[0], 3, padding=1)
            seen, self.down = self._way_down(width)
            last = channels[-1]
            self.middle = nn.ModuleList(
                [
                    _Residual(last, last, width),
                    _Attention(last),
                    _Residual(last, last, width),
                ]
            )
            self.up = self._way_up(seen, width)
            self.norm = _norm(channels[0])
            self.last = nn.Conv2d(channels[0], in_channels, 3, padding=1)
        self._initialise(seed)

    @classmethod
    def preset(cls, name: Literal["s", "m", "l"], *, seed: int = 0) -> UNet:
        """Return one of the published sizes.

        Args:
            name: "s" (7 million weights), "m" (28) or "l" (114).
            seed: Seeds the first weights.

        Returns:
            The untrained network.
        """
        return cls(channels=_PRESETS[name], seed=seed)

    def _way_down(self, width: int) -> tuple[list[int], nn.ModuleList]:
        now, seen, modules = self.channels[0], [self.channels[0]], nn.ModuleList()
        for level, size in enumerate(self.channels):
            for _ in range(self.num_blocks):
                modules.append(_Residual(now, size, width))
                now = size
                seen.append(now)
            if level + 1 < len(self.channels):
                modules.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                seen.append(now)
        return seen, modules

    def _way_up(self, seen: list[int], width: int) -> nn.ModuleList:
        now, left, modules = self.channels[-1], list(seen), nn.ModuleList()
        for level, size in reversed(list(enumerate(self.channels))):
            for _ in range(self.num_blocks + 1):
                modules.append(_Residual(now + left.pop(), size, width))
                now = size
            if level > 0:
                modules.append(nn.Conv2d(now, now, 3, padding=1))
        return modules

    def _initialise(self, seed: int) -> None:
        fill(self)
        stream = generator(seed, "weights")
        for name, module in self.named_modules():
            if isinstance(module, nn.GroupNorm):
                module.reset_parameters()
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            bound = 1 / math.sqrt(module.weight[0].numel())
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=stream)
                if module.bias is not None:
                    module.bias.zero_()
                if name == "last" or name.endswith(("conv2", "out")):
                    module.weight.zero_()  # a block begins as its shortcut

    def forward(
        self, states: Float[Tensor, "b c h w"], levels: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the noise in images of [-1, 1] at levels of noise from 0 on."""
        time = self.time(_waves(levels, self.channels[0]).to(self.first.weight.dtype))
        x = self.first(states)
        seen = [x]
        for module in self.down:
            x = module(x, time) if isinstance(module, _Residual) else module(x)
            seen.append(x)
        for module in self.middle:
            x = module(x, time) if isinstance(module, _Residual) else module(x)
        for module in self.up:
            if isinstance(module, _Residual):
                x = module(torch.cat([x, seen.pop()], dim=1), time)
            else:  # to the size of what the way down saw, whatever it was
                x = module(functional.interpolate(x, size=seen[-1].shape[2:]))
        noise: Tensor = self.last(functional.silu(self.norm(x)))
        return noise


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(inputs), _norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(width, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        main = self.conv1(functional.silu(self.norm1(x)))
        main = main + self.time(functional.silu(time))[:, :, None, None]
        main = self.conv2(functional.silu(self.norm2(main)))
        out: Tensor = main + self.shortcut(x)
        return out


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.heads = max(1, channels // 8)
        self.into = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.into(self.norm(x)).flatten(2).chunk(3, dim=1)
        shaped = (p.unflatten(1, (self.heads, -1)).transpose(2, 3) for p in parts)
        mixed = functional.scaled_dot_product_attention(*shaped)
        out: Tensor = x + self.out(mixed.transpose(2, 3).reshape(x.shape))
        return out


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def _waves(levels: Tensor, width: int) -> Tensor:
    half = width // 2
    steps = torch.arange(half, device=levels.device) / half
    angles = levels[:, None].float() * torch.exp(-math.log(10_000) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
