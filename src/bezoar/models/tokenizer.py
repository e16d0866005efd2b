"""A tokenizer whose vocabulary is the words of some captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bezoar.errors import InputError
from bezoar.shapes import Int64

_WORD = re.compile(r"\w+(?:['’]\w+)*")  # noqa: RUF001, both apostrophes occur
_PAD, _UNKNOWN, _FIRST_WORD = 0, 1, 2


@runtime_checkable
class Tokenizer(Protocol):
    """Turns captions into ids; the end of text has the highest id of a row."""

    @property
    def num_ids(self) -> int:
        """How many ids there are."""
        ...  # pragma: no cover

    @property
    def context_length(self) -> int:
        """Most ids of a caption, start and end included."""
        ...  # pragma: no cover

    def __call__(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids, padded to the longest of these captions."""
        ...  # pragma: no cover


def caption_words(caption: str) -> tuple[str, ...]:
    """Return the words of a caption in lower case, without punctuation.

    Args:
        caption: Any text.

    Returns:
        Its words in order, repeated ones too.

    Example:
        >>> caption_words("A dog's  RED ball, on grass.")
        ('a', "dog's", 'red', 'ball', 'on', 'grass')
    """
    return tuple(_WORD.findall(caption.lower()))


@dataclass(frozen=True, kw_only=True)
class WordTokenizer:
    """Turns captions into ids, one for each word.

    Ids are 0 for padding, 1 for a word that is not known, then the words, then start
    and end of text as the two highest; so the end has the highest id of a row, as in
    OpenAI's tokenizer, and no id of a short vocabulary is the 2 that transformers
    takes for the end in old files.

    Attributes:
        words: The known words; word i has the id i + 2.
        context_length: Most ids of a caption, start and end included.

    Example:
        >>> tokenize = WordTokenizer.from_captions(["a red ball", "a dog"])
        >>> tokenize.words
        ('a', 'ball', 'dog', 'red')
        >>> tokenize(["a dog", "A blue, red ball"]).tolist()
        [[6, 2, 4, 7, 0, 0], [6, 2, 1, 5, 3, 7]]
    """

    words: tuple[str, ...]
    context_length: int = 16

    def __post_init__(self) -> None:
        if not self.words or len(set(self.words)) != len(self.words):
            raise InputError(
                f"expected distinct words, at least one, got {len(self.words)} of "
                f"which {len(set(self.words))} are distinct; make them with "
                "WordTokenizer.from_captions"
            )
        if self.context_length < 3:
            raise InputError(
                "expected a context_length of at least 3 (start, a word, end), got "
                f"{self.context_length}; raise it"
            )

    @classmethod
    def from_captions(
        cls,
        captions: Sequence[str],
        *,
        context_length: int = 16,
        max_words: int | None = None,
    ) -> WordTokenizer:
        """Make a vocabulary of the words of captions.

        Args:
            captions: Texts that have all the words that matter, prompts included.
            context_length: Most ids of a caption, start and end included.
            max_words: Keep only so many of the most frequent words; None keeps all.

        Returns:
            The tokenizer; it does not depend on the order of the captions.
        """
        counts = Counter(w for c in captions for w in caption_words(c))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(
            words=tuple(sorted(ranked[:max_words])), context_length=context_length
        )

    @property
    def num_ids(self) -> int:
        """How many ids there are, words and the four others."""
        return _FIRST_WORD + len(self.words) + 2

    @property
    def end(self) -> int:
        """The id that ends every caption, the highest."""
        return self.num_ids - 1

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=_FIRST_WORD)}

    def __call__(self, captions: Sequence[str]) -> Int64[Tensor, "b l"]:
        """Return ids, padded to the longest of these captions.

        Args:
            captions: Any texts, at least one. A longer one than ``context_length``
                loses its last words, and still ends with the end.

        Returns:
            One row per caption.
        """
        most, known = self.context_length - 2, self._id_of
        rows = [
            [known.get(word, _UNKNOWN) for word in caption_words(caption)[:most]]
            for caption in captions
        ]
        ids = torch.full((len(rows), max(map(len, rows)) + 2), _PAD)
        ids[:, 0] = self.end - 1
        for i, row in enumerate(rows):  # Python strings have no batched form
            ids[i, 1 : len(row) + 1] = torch.tensor(row, dtype=torch.int64)
            ids[i, len(row) + 1] = self.end
        return ids
