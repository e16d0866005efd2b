"""Which words a ranking of pairs accuses, and which pairs to forget: stage 2 of UBT.

That the highest of a ranking are unlearnt is the papers'. The words, the test that can
say "nothing found" and the filter are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.models import DualEncoder, embed_captions, embed_images
from bezoar.repair.ubt_loss import ToForget
from bezoar.repair.ubt_words import (
    Vocabulary,
    Word,
    WordTest,
    list_lengths,
    local_captions,
    without,
)
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Int64

Drop = Callable[[str, Tensor], float]

_LOOKED_AT = 3  # words with the highest z whose drop is measured in any case
_LEAST_EXCESS = 0.05  # of the similarity above the margin, or any ratio would be large
_LEAST_TO_HOLD_OUT = 24  # isolated pairs
_SURE_TOP, _SURE_RATE = 64, 0.9


@dataclass(frozen=True, kw_only=True)
class Accused:
    """The words that a backdoor seems to hang on.

    Attributes:
        words: The lead word first; empty where no word passes the test.
        top: Longest list at which one passes (k*); 0 where none does.
        table: The words that were looked at, list by list.
    """

    words: tuple[str, ...]
    top: int
    table: tuple[Word, ...]

    @property
    def is_sure(self) -> bool:
        """Whether a word is in nearly all of the first 64 captions, and passes."""
        return any(
            word.passes and word.top == _SURE_TOP and word.share >= _SURE_RATE
            for word in self.table
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Isolation:
    """The pairs that are to be forgotten.

    Attributes:
        rows: Their places, most suspicious first.
        num_walked: Ranks that were looked through.
        expected_false_alarms: Upper bound on how many of them are innocent.
    """

    rows: Int64[Tensor, " i"]
    num_walked: int
    expected_false_alarms: float


def name_words(
    ranked: Int64[Tensor, " s"], *, vocabulary: Vocabulary, test: WordTest, drop: Drop
) -> Accused:
    """Return the words that stand out at the head of a ranking.

    Args:
        ranked: Places of the suspicious pairs, most suspicious first.
        vocabulary: The words of all captions.
        test: What a word must show, all at one length of the list.
        drop: Returns of a word, and the places that are looked at, which part of the
            similarity goes with the word.

    Returns:
        The words of the longest list at which one passes.
    """
    table: list[Word] = []
    for top in list_lengths(len(ranked)):
        rows = ranked[:top]
        shares, z = vocabulary.scores(rows)
        strong = (z >= test.min_z) & (shares >= test.min_rate)
        first = z.argsort(descending=True, stable=True)[:_LOOKED_AT]
        strong[first[z[first] > 0]] = True
        found = strong.nonzero().flatten()
        for place in found[z[found].argsort(descending=True, stable=True)].tolist():
            name, share = vocabulary.words[place], shares[place].item()
            gone, odds = drop(name, rows), z[place].item()
            table.append(
                Word(
                    word=name,
                    top=top,
                    share=share,
                    z=odds,
                    drop=gone,
                    passes=odds >= test.min_z
                    and share >= test.min_rate
                    and gone >= test.min_drop,
                )
            )
    longest = max((word.top for word in table if word.passes), default=0)
    passed = [word.word for word in table if word.passes and word.top == longest]
    words = tuple(passed[: test.max_words])
    return Accused(words=words, top=longest, table=tuple(table))


def isolate(
    ranked: Int64[Tensor, " s"],
    *,
    accused: Accused,
    vocabulary: Vocabulary,
    num_unlearn: int,
    word_filter: bool = True,
) -> Isolation:
    """Return the pairs to forget.

    Args:
        ranked: Places of the suspicious pairs, most suspicious first.
        accused: The words.
        vocabulary: The words of all captions.
        num_unlearn: Most pairs to take.
        word_filter: Take pairs that hold an accused word, from twice the list at which
            it was found; else the first pairs whatever they hold.

    Returns:
        The pairs; none where no word is accused, unless the filter is off.
    """
    if not word_filter:
        rows = ranked[:num_unlearn]
        return Isolation(
            rows=rows, num_walked=len(rows), expected_false_alarms=float(len(rows))
        )
    walked = ranked[: 2 * accused.top]
    holds = torch.tensor(vocabulary.holds(accused.words, walked), dtype=torch.bool)
    lower = vocabulary.holds(accused.words, ranked[len(ranked) // 2 :])
    innocent = sum(lower) / max(1, len(lower))
    return Isolation(
        rows=walked[holds][:num_unlearn],
        num_walked=len(walked),
        expected_false_alarms=innocent * len(walked),
    )


def to_forget(
    rows: Int64[Tensor, " i"],
    *,
    data: PairData,
    words: tuple[str, ...],
    vocabulary: Vocabulary,
    local_words: bool,
    num_partial: int,
    keep_word_rate: float,
    normal: Int64[Tensor, " m"],
    seed: int,
) -> ToForget:
    """Return what is to be forgotten of isolated pairs, and what is held out.

    Args:
        rows: Places of the isolated pairs.
        data: All pairs.
        words: The accused words.
        vocabulary: The words of all captions.
        local_words: Forget accused words alone and in part of their company; else,
            and for captions without one, the whole caption.
        num_partial: Texts with company for each pair.
        keep_word_rate: Chance of another word to stay.
        normal: Places of trusted pairs; those without the words are strangers.
        seed: Seeds the texts and what is held out.

    Returns:
        A third is held out where there are 24 or more; else all pairs serve for both.
    """
    order = rows[torch.randperm(len(rows), generator=generator(seed, "isolated"))]
    held = len(rows) // 3 if len(rows) >= _LEAST_TO_HOLD_OUT else 0
    texts = {
        row: local_captions(
            vocabulary.texts[row],
            words,
            pair_id=data.ids[row],
            num_partial=num_partial,
            keep_word_rate=keep_word_rate,
            seed=seed,
        )
        if local_words and not set(words).isdisjoint(vocabulary.texts[row])
        else (data.captions[row],) * (1 + num_partial * local_words)
        for row in order.tolist()
    }
    watched = order[:held] if held else order
    accused = set(words)
    strangers = [
        row for row in normal.tolist() if accused.isdisjoint(vocabulary.texts[row])
    ]
    return ToForget(
        rows=order[held:],
        texts=[texts[row] for row in order[held:].tolist()],
        held_out=watched,
        held_out_texts=[texts[row][0] for row in watched.tolist()],
        strangers=torch.tensor(strangers, dtype=torch.int64),
    )


class Drops:
    """Measures how much of the similarity of some pairs hangs on a word.

    Args:
        network: The suspect model, in eval mode on its device.
        data: All pairs.
        rows: The pairs that may be asked for.
        vocabulary: The words of all captions.
        margin: Similarity of pairs that do not belong together (m).
        runtime: Its batch size is used.
    """

    def __init__(
        self,
        network: DualEncoder,
        *,
        data: PairData,
        rows: Int64[Tensor, " s"],
        vocabulary: Vocabulary,
        margin: float,
        runtime: Runtime,
    ) -> None:
        self._network, self._texts, self._margin = network, vocabulary.texts, margin
        self._place = {row: i for i, row in enumerate(rows.tolist())}
        self._seen = embed_images(
            network, data.images[rows], batch_size=runtime.batch_size
        )
        # Words joined on both sides, so that punctuation makes no difference.
        whole = [" ".join(self._texts[row]) for row in rows.tolist()]
        self._whole = (self._seen * embed_captions(network, whole)).sum(1)

    def __call__(self, word: str, rows: Int64[Tensor, " k"]) -> float:
        """Return the part of the similarity that goes when a word goes.

        Args:
            word: One that some of the captions hold.
            rows: The pairs that are looked at.

        Returns:
            Mean fall of s over the pairs with the word, divided by how far s of all
            the rows lies above the margin.
        """
        every = torch.tensor([self._place[row] for row in rows.tolist()])
        own = [row for row in rows.tolist() if word in self._texts[row]]
        places = torch.tensor([self._place[row] for row in own])
        texts = [without(self._texts[row], word) for row in own]
        left = (self._seen[places] * embed_captions(self._network, texts)).sum(1)
        excess = self._whole[every].mean().item() - self._margin
        fall = (self._whole[places] - left).mean().item()
        return fall / max(excess, _LEAST_EXCESS)
