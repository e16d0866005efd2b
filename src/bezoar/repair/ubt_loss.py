"""What UBT forgets, by which loss and how fast: the settings of stage 3.

The constraint is that of the group's released code; the hinge, which has an end, is
ours, and so is that every text has a margin of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.shapes import Float, Int64
from bezoar.train import clip_loss


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """How the isolated pairs are forgotten.

    Attributes:
        loss: "hinge", "constraint" or "ascent".
        forget_weight: Weight of the isolated pairs.
        keep_weight: Weight of the trusted ones.
        distill_weight: Weight of the distance to the suspect model's image vectors.
        lr: Step size of AdamW, constant after ten steps of warm-up.
        steps: Most steps.
        stop_rate: Share of the similarity above the margin that may be left.
        batch_size: Isolated pairs per step, drawn with replacement.
        normal_batch_size: Trusted pairs per step.
        weight_decay: Weight decay; none on norms, biases and vectors.
        trainable: "image", or "all" for both towers.
    """

    loss: Literal["hinge", "constraint", "ascent"]
    forget_weight: float
    keep_weight: float
    distill_weight: float
    lr: float
    steps: int
    stop_rate: float
    batch_size: int
    normal_batch_size: int
    weight_decay: float
    trainable: Literal["image", "all"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ToForget:
    """The pairs to forget, and what of their captions.

    Attributes:
        rows: Places of the pairs that are unlearnt.
        texts: For each of them its texts, as many for each.
        held_out: Places of pairs that the forgetting is measured on.
        held_out_texts: For each of those its text.
        strangers: Places of trusted pairs that are told of without the words. A text
            counts as forgotten by an image that is no nearer to it than they are;
            None measures all texts by one margin.
    """

    rows: Int64[Tensor, " i"]
    texts: Sequence[Sequence[str]]
    held_out: Int64[Tensor, " v"]
    held_out_texts: Sequence[str]
    strangers: Int64[Tensor, " t"] | None = None


def forget_loss(
    images: Float[Tensor, "b e"],
    texts: Float[Tensor, "b a e"],
    *,
    margin: float | Float[Tensor, "b a"],
    log_scale: Float[Tensor, ""],
    kind: Literal["hinge", "constraint", "ascent"] = "hinge",
) -> Float[Tensor, ""]:
    """Return a loss that falls as images lose their texts.

    Args:
        images: Unit vectors of the images.
        texts: Unit vectors of what each is to lose.
        margin: Similarity of pairs that do not belong together (m), of all texts or
            of each.
        log_scale: Logarithm of the model's factor; for "ascent".
        kind: "hinge" is the mean of relu(s - m)^2, bounded and exactly 0 once all is
            forgotten; "constraint" that of (s + 1)^2, the released code with a target
            of +1; "ascent" the contrastive loss with its sign turned, without bound.

    Returns:
        The loss.

    Example:
        >>> one = torch.ones(1, 1)
        >>> loss = forget_loss(one, one[:, None], margin=0.5, log_scale=torch.zeros(()))
        >>> loss.item()
        0.25
    """
    if kind == "ascent":
        each = [
            clip_loss(images, texts[:, a], log_scale=log_scale)
            for a in range(texts.shape[1])
        ]
        return -torch.stack(each).mean()
    similarity = (images[:, None] * texts).sum(2)
    if kind == "constraint":
        return (similarity + 1).square().mean()
    return (similarity - margin).relu().square().mean()
