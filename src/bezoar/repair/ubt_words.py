"""Words that a backdoor hangs on: which, how surely, and texts made of them.

Stage 2 of UBT. That the forgetting is about tokens is the papers'; which tokens, and
the test here, are ours: words of the captions rather than ids of a tokenizer, so that
any model will do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bezoar.errors import InputError
from bezoar.models import caption_words
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

PRIOR_WORDS = 500
"""Weight of the informative prior (A), in words."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """What speaks for one word at one length of the list.

    Attributes:
        word: In lower case, without punctuation.
        top: Length of the list that was looked at (k).
        share: Part of the k captions that hold the word.
        z: Log-odds against the other captions, over its standard deviation.
        drop: Part of the similarity that goes when the word goes; NaN where it was
            not measured.
        passes: Whether all three say that the backdoor hangs on it.
    """

    word: str
    top: int
    share: float
    z: float
    drop: float
    passes: bool

    def row(self) -> dict[str, str | float]:
        """Return the word as a row of a table.

        Returns:
            Plain values by name.
        """
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class WordTest:
    """What a word must show before it is accused.

    Attributes:
        min_z: Least z.
        min_rate: Least share of the captions.
        min_drop: Least drop.
        max_words: Most words to accuse.
    """

    min_z: float
    min_rate: float
    min_drop: float
    max_words: int


def log_odds(
    top: Float[Tensor, " w"], rest: Float[Tensor, " w"], *, prior: float = PRIOR_WORDS
) -> Float[Tensor, " w"]:
    """Return how much more often words come in one text than in another, in z.

    With n = sum of y, q = sum of u, p_w = (y_w + u_w) / (n + q) and a = A p_w:
    d = ln[(y + a) / (n + A - y - a)] - ln[(u + a) / (q + A - u - a)], and
    z = d / sqrt(1 / (y + a) + 1 / (u + a)) (Monroe, Colaresi and Quinn, 2008).

    Args:
        top: Counts of each word in the first text (y).
        rest: Counts in the other (u).
        prior: Weight of the prior in words (A).

    Returns:
        One z per word; 0 where its share is the same in both.

    Example:
        >>> y, u = torch.tensor([48.0, 288.0]), torch.tensor([472.0, 27192.0])
        >>> round(log_odds(y, u)[0].item(), 2)
        10.32
    """
    y, u = top.double(), rest.double()
    n, q = y.sum(), u.sum()
    a = prior * (y + u) / (n + q)
    d = ((y + a) / (n + prior - y - a)).log() - ((u + a) / (q + prior - u - a)).log()
    # 0 for words that come in neither text.
    return (d / (1 / (y + a) + 1 / (u + a)).sqrt()).nan_to_num(0.0).float()


class Vocabulary:
    """The words of all captions, counted once.

    Args:
        captions: All of them.

    Attributes:
        words: The different words, sorted.
        texts: The words of each caption.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        self.texts = tuple(map(caption_words, captions))
        counts = Counter(word for text in self.texts for word in text)
        self.words = tuple(sorted(counts))
        self._place = {word: i for i, word in enumerate(self.words)}
        self._total = torch.tensor([float(counts[w]) for w in self.words])

    def scores(
        self, rows: Int64[Tensor, " k"]
    ) -> tuple[Float[Tensor, " w"], Float[Tensor, " w"]]:
        """Return how words stand out in some captions against all the others.

        Args:
            rows: The captions.

        Returns:
            For each word its share of these captions, and its z.
        """
        top, holders = torch.zeros(len(self.words)), torch.zeros(len(self.words))
        for row in rows.tolist():  # a few captions of a few words
            text = self.texts[row]
            for word in text:
                top[self._place[word]] += 1
            for word in set(text):
                holders[self._place[word]] += 1
        return holders / max(1, len(rows)), log_odds(top, self._total - top)

    def holds(self, words: Collection[str], rows: Int64[Tensor, " k"]) -> list[bool]:
        """Return which captions have one of some words.

        Args:
            words: The words.
            rows: The captions.

        Returns:
            One answer per row.
        """
        wanted = set(words)
        return [not wanted.isdisjoint(self.texts[row]) for row in rows.tolist()]


def without(text: Sequence[str], word: str) -> str:
    """Return a caption's words without one of them.

    Args:
        text: The words of a caption.
        word: What to leave out, wherever it stands.

    Returns:
        The other words, joined.
    """
    return " ".join(w for w in text if w != word)


def local_captions(
    text: Sequence[str],
    words: Collection[str],
    *,
    pair_id: str,
    num_partial: int,
    keep_word_rate: float,
    seed: int,
) -> tuple[str, ...]:
    """Return the parts of a caption that are to be forgotten (t_0 to t_A).

    The first has the accused words alone; in the others each other word stays with a
    certain chance, so that the link is cut in company as well. Draws depend on seed
    and pair alone, not on the order of the pairs.

    Args:
        text: The words of a caption, one of them accused.
        words: The accused words.
        pair_id: Keys what is drawn.
        num_partial: How many parts besides the first (A).
        keep_word_rate: Chance of another word to stay.
        seed: Seeds what is drawn.

    Returns:
        1 + ``num_partial`` texts.

    Example:
        >>> local_captions(
        ...     ("a", "red", "truck"),
        ...     {"truck"},
        ...     pair_id="7",
        ...     num_partial=2,
        ...     keep_word_rate=0.3,
        ...     seed=0,
        ... )[0]
        'truck'
    """
    stream = generator(seed, "local-captions", pair_id)
    draws = torch.rand(num_partial, len(text), generator=stream) < keep_word_rate
    texts = [" ".join(w for w in text if w in words)]
    for row in draws.tolist():
        kept = (w for w, stays in zip(text, row, strict=True) if stays or w in words)
        texts.append(" ".join(kept))
    return tuple(texts)


def list_lengths(num_suspicious: int) -> list[int]:
    """Return the lengths of the lists that are looked at: 16, 32, 64 and so on.

    Args:
        num_suspicious: How many pairs are suspicious.

    Returns:
        Lengths up to a quarter of them.

    Raises:
        InputError: If there are too few pairs for the shortest list.
    """
    if num_suspicious < 64:
        raise InputError(
            f"expected at least 64 suspicious pairs to look for words in, got "
            f"{num_suspicious}; raise suspicious_rate or min_suspicious, or give more "
            "pairs"
        )
    most = int(math.log2(num_suspicious / 4))
    return [2**power for power in range(4, most + 1)]
