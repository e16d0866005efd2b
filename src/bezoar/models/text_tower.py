"""The text tower of CLIP, in any size, with the names of OpenAI's weights.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
2021, arXiv:2103.00020: a causal transformer with norms before its blocks, read where
the text ends.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.shapes import Float, Int64


class Attention(nn.Module):
    """Causal self-attention; the three projections lie in one matrix.

    Args:
        width: Length of the vectors.
        heads: Heads, a divisor of the width.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        """Return what each position reads from itself and those before it."""
        batch, length, width = x.shape
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        heads = projected.view(batch, length, 3, self.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        mixed = read.transpose(1, 2).reshape(batch, length, width)
        result: Tensor = self.out_proj(mixed)
        return result


class QuickGELU(nn.Module):
    """The approximation x * sigmoid(1.702 x) that the published weights expect."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        return x * torch.sigmoid(1.702 * x)


class TextBlock(nn.Module):
    """Attention and a small network, each after a norm and beside a shortcut.

    Args:
        width: Length of the vectors.
        heads: Heads of the attention.
        hidden: Width of the small network inside.
    """

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads=heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, hidden),
                gelu=QuickGELU(),
                c_proj=nn.Linear(hidden, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        """Return the block's vectors."""
        x = x + self.attn(self.ln_1(x))
        result: Tensor = x + self.mlp(self.ln_2(x))
        return result


class Transformer(nn.Module):
    """The blocks one after the other; a module of its own for the sake of its name.

    Args:
        width: Length of the vectors.
        layers: Blocks.
        heads: Heads of the attention.
        hidden: Width of the small network in a block.
    """

    def __init__(self, width: int, *, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(
            *(TextBlock(width, heads=heads, hidden=hidden) for _ in range(layers))
        )

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l w"]:
        """Return the vectors after the last block."""
        result: Tensor = self.resblocks(x)
        return result


def read_at_end(
    vectors: Float[Tensor, "b l w"], ids: Int64[Tensor, "b l"]
) -> Float[Tensor, "b w"]:
    """Return the vector where each text ends: at its highest id.

    Args:
        vectors: One per position.
        ids: The text; its end has the highest id of all, and the first one counts.

    Returns:
        One vector per text.
    """
    rows = torch.arange(len(ids), device=ids.device)
    return vectors[rows, ids.argmax(1)]


@torch.no_grad()
def draw_text_tower(
    *,
    transformer: Transformer,
    token_embedding: nn.Embedding,
    positional_embedding: nn.Parameter,
    text_projection: nn.Parameter,
    stream: torch.Generator,
) -> None:
    """Give a text tower the first weights of the published trainings.

    Args:
        transformer: Its blocks; biases become 0, factors of norms are left alone.
        token_embedding: Vectors of the ids.
        positional_embedding: Vectors of the positions.
        text_projection: Matrix to the common space.
        stream: Where the numbers come from.
    """
    layers, width = len(transformer.resblocks), positional_embedding.shape[1]

    def draw(weight: Tensor, deviation: float) -> None:
        weight.copy_(deviation * torch.randn(weight.shape, generator=stream))

    draw(token_embedding.weight, 0.02)
    draw(positional_embedding, 0.01)
    narrow = width**-0.5 * (2 * layers) ** -0.5
    deviations = {
        "in_proj_weight": width**-0.5,
        "out_proj.weight": narrow,
        "c_fc.weight": (2 * width) ** -0.5,
        "c_proj.weight": narrow,
    }
    for name, parameter in transformer.named_parameters():
        ending = next((e for e in deviations if name.endswith(e)), None)
        if ending is not None:
            draw(parameter, deviations[ending])
        elif name.endswith("bias"):
            parameter.zero_()
    draw(text_projection, width**-0.5)
