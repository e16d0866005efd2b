"""A CLIP for small images that trains in seconds on one core.

The towers of the miniatures: a few convolutions, and two layers of text. Sizes are
ours; the idea is that of Radford et al., 2021, arXiv:2103.00020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.dual_encoder import DualEncoder, unit
from bezoar.models.initial import initialise
from bezoar.models.text_tower import Transformer, draw_text_tower, read_at_end
from bezoar.models.tokenizer import WordTokenizer
from bezoar.models.wrap import Normalized
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

FIRST_LOG_SCALE = math.log(1 / 0.07)
_EMBEDDING, _WIDTH, _LAYERS, _HEADS, _HIDDEN = 64, 128, 2, 4, 256


class TinyClip(DualEncoder):
    """Two small towers for images of 24 or of 32 pixels.

    Args:
        tokenizer: Its words are the model's vocabulary.
        resolution: 24 (the tower of the digits) or 32 (that of CIFAR-10).
        seed: Seeds the first weights.

    Attributes:
        tokenizer: What turns captions into ids.

    Example:
        >>> model = TinyClip(WordTokenizer.from_captions(["a red dot"]), resolution=24)
        >>> model.encode_images(torch.rand(2, 3, 24, 24)).shape
        torch.Size([2, 64])
        >>> model.encode_texts(model.tokenize(["a dot", "red"])).shape
        torch.Size([2, 64])
    """

    def __init__(
        self, tokenizer: WordTokenizer, *, resolution: int = 32, seed: int = 0
    ) -> None:
        super().__init__()
        if resolution not in (24, 32):
            raise ModelError(
                f"expected a resolution of 24 or 32 for TinyClip, got {resolution}; "
                "choose one of them, or take a ClipResNet"
            )
        self.tokenizer = tokenizer
        self.resolution = resolution
        self.context_length = tokenizer.context_length
        self.seed = seed
        with torch.device("meta"):  # no weights are drawn from the global stream
            tower = _tower_24() if resolution == 24 else _tower_32()
            self.token_embedding = nn.Embedding(tokenizer.num_ids, _WIDTH)
            self.positional_embedding = nn.Parameter(
                torch.empty(self.context_length, _WIDTH)
            )
            self.transformer = Transformer(
                _WIDTH, layers=_LAYERS, heads=_HEADS, hidden=_HIDDEN
            )
            self.ln_final = nn.LayerNorm(_WIDTH)
            self.text_projection = nn.Parameter(torch.empty(_WIDTH, _EMBEDDING))
            self.logit_scale = nn.Parameter(torch.empty(()))
            self.visual = tower
        initialise(self, seed=seed)
        draw_text_tower(
            transformer=self.transformer,
            token_embedding=self.token_embedding,
            positional_embedding=self.positional_embedding,
            text_projection=self.text_projection,
            stream=generator(seed, "text-tower"),
        )
        nn.init.constant_(self.logit_scale, FIRST_LOG_SCALE)
        self.visual = Normalized(self.visual, mean=[0.5] * 3, std=[0.25] * 3)

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
        return unit(self.visual(self.fit(images)))

    def encode_texts(self, ids: Int64[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of texts."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = read_at_end(self.ln_final(self.transformer(x)), ids)
        return unit(x @ self.text_projection)


class Residual(nn.Module):
    """Two convolutions and a shortcut around them.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = _conv(width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the block's feature map."""
        result: Tensor = x + self.conv2(self.conv1(x))
        return result


class _Mean(nn.Module):
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return x.mean((2, 3))


def _tower_24() -> nn.Module:
    return nn.Sequential(
        _conv(3, 16),
        _conv(16, 32, stride=2),
        Residual(32),
        _conv(32, 64, stride=2),
        Residual(64),
        _conv(64, 128, stride=2),
        nn.Flatten(),
        nn.Linear(128 * 3 * 3, _EMBEDDING),
    )


def _tower_32() -> nn.Module:
    return nn.Sequential(
        _conv(3, 32),
        _conv(32, 64, stride=2),
        _conv(64, 128, stride=2),
        Residual(128),
        _conv(128, 256, stride=2),
        _Mean(),
        nn.Linear(256, _EMBEDDING),
    )


def _conv(channels: int, width: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
