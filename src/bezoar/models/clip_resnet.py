"""The residual CLIP of OpenAI, in its published size and in small ones.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
2021, arXiv:2103.00020. Names of weights are those of the published files, so that
these load as they are. It is the victim of the published image-text attacks, and
transformers does not have it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import ModelError
from bezoar.models.dual_encoder import DualEncoder, unit
from bezoar.models.initial import initialise
from bezoar.models.text_tower import Transformer, draw_text_tower, read_at_end
from bezoar.models.tokenizer import Tokenizer
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

ClipStem = Literal["large", "small"]

_MOST_LAYERS = 200  # a number in a file must not keep us building
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipBottleneck(nn.Module):
    """A bottleneck that strides by averaging, not in a convolution.

    Args:
        channels: Channels that come in.
        width: Channels of the 3x3 convolution; four times as many come out.
        stride: Step of the average before the last convolution and in the shortcut.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        wide = self.expansion * width
        self.conv1 = _conv(channels, width, size=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, size=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = _conv(width, wide, size=1)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != wide:
            parts: list[tuple[str, nn.Module]] = [
                ("-1", nn.AvgPool2d(stride)),
                ("0", _conv(channels, wide, size=1)),
                ("1", nn.BatchNorm2d(wide)),
            ]
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return the block's feature map."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out + shortcut)
        return result


class AttentionPool(nn.Module):
    """Reads a feature map by attention, from the place of its mean.

    Args:
        side: Height and width of the feature map.
        width: Its channels.
        heads: Heads of the attention.
        out: Length of the vector that comes out.
    """

    def __init__(self, side: int, width: int, *, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Return one vector per image."""
        places = x.flatten(2).transpose(1, 2)
        every = torch.cat([places.mean(1, keepdim=True), places], dim=1)
        every = every + self.positional_embedding
        read = functional.scaled_dot_product_attention(
            self._split(self.q_proj(every[:, :1])),
            self._split(self.k_proj(every)),
            self._split(self.v_proj(every)),
        )
        pooled: Tensor = self.c_proj(read.transpose(1, 2).flatten(1))
        return pooled

    def _split(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b n l d"]:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class ModifiedResNet(nn.Module):
    """Three convolutions as a stem, four layers of bottlenecks, an attention pool.

    Args:
        layers: Blocks in each of the four layers.
        width: Channels of the first layer; 64 in RN50.
        resolution: Height and width of the images.
        embedding: Length of the vector that comes out.
        stem: "large" divides the size by 4 as published; "small" keeps it.
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        width: int,
        resolution: int,
        embedding: int,
        stem: ClipStem,
    ) -> None:
        super().__init__()
        half, is_large = width // 2, stem == "large"
        self.conv1 = _conv(3, half, size=3, stride=2 if is_large else 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = _conv(half, half, size=3)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = _conv(half, width, size=3)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2) if is_large else nn.Identity()
        wide = ClipBottleneck.expansion * width
        self.layer1 = _layer(width, width, layers[0], stride=1)
        self.layer2 = _layer(wide, 2 * width, layers[1], stride=2)
        self.layer3 = _layer(2 * wide, 4 * width, layers[2], stride=2)
        self.layer4 = _layer(4 * wide, 8 * width, layers[3], stride=2)
        self.attnpool = AttentionPool(
            resolution // (32 if is_large else 8),
            8 * wide,
            heads=max(1, width // 2),
            out=embedding,
        )

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return one vector per image."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(self.relu(self.bn3(self.conv3(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = self.attnpool(x)
        return pooled


class ClipResNet(DualEncoder):
    """An image-text model with a residual image tower; the defaults are RN50.

    Args:
        tokenizer: Turns captions into ids; the end of text has the highest.
        resolution: Height and width of the images.
        layers: Blocks in each of the four layers.
        width: Channels of the first layer.
        embedding: Length of the common vectors.
        text_width: Width of the text tower.
        text_layers: Its blocks.
        text_heads: Its heads.
        stem: "large" as published; "small" for images of about 32 pixels.
        seed: Seeds the first weights.

    Attributes:
        tokenizer: What turns captions into ids.
        settings: The sizes, as they were given.

    Example:
        >>> from bezoar.models import WordTokenizer
        >>> words = WordTokenizer.from_captions(["a red dot"])
        >>> model = ClipResNet(
        ...     words, resolution=32, layers=(1, 1, 1, 1), width=8, embedding=16,
        ...     text_width=32, text_layers=1, text_heads=2, stem="small",
        ... )
        >>> model.eval().encode_images(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 16])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        resolution: int = 224,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        embedding: int = 1024,
        text_width: int = 512,
        text_layers: int = 12,
        text_heads: int = 8,
        stem: ClipStem = "large",
        seed: int = 0,
    ) -> None:
        super().__init__()
        step = 32 if stem == "large" else 8
        deepest = max(text_layers, *layers) if layers else 0
        if (
            len(layers) != 4
            or deepest > _MOST_LAYERS
            or resolution % step
            or text_width % text_heads
        ):
            raise ModelError(
                "expected four layers of at most 200 blocks, a resolution that is a "
                "multiple of "
                f"{step} for this stem, and text_heads that divide text_width, got "
                f"{tuple(layers)}, {resolution}, and {text_heads} of {text_width}; "
                "correct the sizes"
            )
        self.tokenizer, self.resolution = tokenizer, resolution
        self.context_length = tokenizer.context_length
        self.settings: dict[str, object] = {
            "resolution": resolution,
            "layers": list(layers),
            "width": width,
            "embedding": embedding,
            "text_width": text_width,
            "text_layers": text_layers,
            "text_heads": text_heads,
            "stem": stem,
        }
        with torch.device("meta"):  # no weights are drawn from the global stream
            self.visual = ModifiedResNet(
                layers,
                width=width,
                resolution=resolution,
                embedding=embedding,
                stem=stem,
            )
            self.transformer = Transformer(
                text_width, layers=text_layers, heads=text_heads, hidden=4 * text_width
            )
            self.token_embedding = nn.Embedding(tokenizer.num_ids, text_width)
            self.positional_embedding = nn.Parameter(
                torch.empty(self.context_length, text_width)
            )
            self.ln_final = nn.LayerNorm(text_width)
            self.text_projection = nn.Parameter(torch.empty(text_width, embedding))
            self.logit_scale = nn.Parameter(torch.empty(()))
        initialise(self, seed=seed)
        self._draw(generator(seed, "text-tower"))
        # Not persistent: the published files do not hold them.
        for name, values in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
            told = torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, told, persistent=False)

    @torch.no_grad()
    def _draw(self, stream: torch.Generator) -> None:
        draw_text_tower(
            transformer=self.transformer,
            token_embedding=self.token_embedding,
            positional_embedding=self.positional_embedding,
            text_projection=self.text_projection,
            stream=stream,
        )
        nn.init.constant_(self.logit_scale, math.log(1 / 0.07))
        pool = self.visual.attnpool
        width = pool.positional_embedding.shape[1]
        drawn = torch.randn(pool.positional_embedding.shape, generator=stream)
        pool.positional_embedding.copy_(width**-0.5 * drawn)
        for name, parameter in self.visual.named_parameters():
            if name.startswith("layer") and name.endswith("bn3.weight"):
                parameter.zero_()  # blocks begin as their shortcuts

    @property
    def log_scale(self) -> nn.Parameter:
        """Logarithm of the factor that cosines are multiplied by in the loss."""
        return self.logit_scale

    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""
        return list(self.visual.parameters())

    def tokenize(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids of captions, no longer than the longest of them needs."""
        return self.tokenizer(captions)

    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images in [0, 1]."""
        return unit(self.visual((self.fit(images) - self.mean) / self.std))

    def encode_texts(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of texts."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = read_at_end(self.ln_final(self.transformer(x)), ids)
        return unit(x @ self.text_projection)


def _layer(channels: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    wide = ClipBottleneck.expansion * width
    first = ClipBottleneck(channels, width, stride=stride)
    rest = [ClipBottleneck(wide, width, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _conv(channels: int, wide: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, wide, size, stride=stride, padding=size // 2, bias=False)
