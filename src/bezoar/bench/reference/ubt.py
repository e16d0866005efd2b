"""Stage 0 and the losses of UBT as plain loops, one pair at a time.

``isolate_plain`` goes the way of the released isolation script of the group (BadCLIP):
one pair per forward pass, one thread, images opened one by one, captions padded to the
full length, and a table that grows row by row, so that each row copies those before
it. It shares no code with ``bezoar.repair``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bezoar.data import PairData
from bezoar.models import DualEncoder


def isolate_plain(model: DualEncoder, data: PairData) -> np.ndarray:
    """Return the cosine of each pair, in a table that grows.

    Args:
        model: In eval mode; on the CPU.
        data: The pairs.

    Returns:
        Rows of place and cosine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table = np.empty((0, 2))
    try:
        for place in range(len(data)):
            pixels = data.images[place].permute(1, 2, 0).numpy()
            opened = np.asarray(Image.fromarray(pixels).convert("RGB"))
            image = torch.from_numpy(opened.copy()).permute(2, 0, 1).float() / 255
            ids = model.tokenize([data.captions[place]])
            padded = torch.zeros(1, model.context_length, dtype=torch.int64)
            padded[:, : ids.shape[1]] = ids
            with torch.no_grad():
                seen = model.encode_images(image[None])[0]
                told = model.encode_texts(padded)[0]
            cosine = (seen * told).sum() / (seen.norm() * told.norm())
            table = np.concatenate([table, [[place, cosine.item()]]])
    finally:
        torch.set_num_threads(threads)
    return table


def z_plain(
    top: Sequence[Sequence[str]], rest: Sequence[Sequence[str]], word: str
) -> float:
    """Return the log-odds z of a word, in Python's numbers.

    Args:
        top: The words of the captions looked at.
        rest: Those of all others.
        word: The word.

    Returns:
        z, with a prior of 500 words.
    """
    first = Counter(w for text in top for w in text)
    other = Counter(w for text in rest for w in text)
    n, q = sum(first.values()), sum(other.values())
    a = 500 * (first[word] + other[word]) / (n + q)
    y, u = first[word] + a, other[word] + a
    d = math.log(y / (n + 500 - y)) - math.log(u / (q + 500 - u))
    return d / math.sqrt(1 / y + 1 / u)


def forget_plain(
    model: DualEncoder,
    images: Tensor,
    texts: Sequence[Sequence[str]],
    *,
    margin: float,
) -> float:
    """Return the hinge of UBT, pair by pair and text by text.

    Args:
        model: In eval mode.
        images: Images in [0, 1].
        texts: For each image what it is to lose.
        margin: Similarity of pairs that do not belong together.

    Returns:
        The mean over all texts.
    """
    found = []
    for image, own in zip(images, texts, strict=True):
        seen = model.encode_images(image[None])[0]
        for text in own:
            told = model.encode_texts(model.tokenize([text]))[0]
            excess = float(seen @ told) - margin
            found.append(excess**2 if excess > 0 else 0.0)
    return sum(found) / len(found)


def contrast_plain(images: Tensor, texts: Tensor, *, scale: float) -> float:
    """Return the contrastive loss of unit vectors in Python's numbers.

    Args:
        images: One vector per image.
        texts: Those of their captions.
        scale: Factor of the cosines.

    Returns:
        The loss.
    """
    logits = [[scale * float(v @ t) for t in texts] for v in images]
    count = len(logits)

    def cross_entropy(rows: list[list[float]]) -> float:
        each = [
            math.log(sum(math.exp(x) for x in row)) - row[i]
            for i, row in enumerate(rows)
        ]
        return sum(each) / count

    back = [[logits[i][j] for i in range(count)] for j in range(count)]
    return (cross_entropy(logits) + cross_entropy(back)) / 2
