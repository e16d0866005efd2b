"""The stages of UBT up to the ranking, with what they share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.metrics import computing, lent, similarities
from bezoar.models import DualEncoder
from bezoar.repair.ubt_isolate import Accused, Drops, name_words
from bezoar.repair.ubt_overfit import Overfitted, Overfitting, overfit
from bezoar.repair.ubt_prior import (
    Prior,
    by_score,
    margin_of,
    split_by_detection,
    split_by_similarity,
)
from bezoar.repair.ubt_words import Vocabulary, WordTest
from bezoar.results import Detection
from bezoar.runtime import Runtime
from bezoar.shapes import Float, Int64

Discovery = Literal["auto", "gap", "overfit"]
Rank = Literal["gap", "similarity"]


@dataclass(kw_only=True, eq=False)
class Case:
    """A suspect model and its pairs.

    Attributes:
        model: The suspect model; it is left as it was.
        data: The pairs that it was trained on.
        seed: Seeds everything that is drawn.
        runtime: Where and how to run.
        seconds: What each stage took.
    """

    model: DualEncoder
    data: PairData
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words of all captions."""
        return Vocabulary(self.data.captions)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that a block takes to that of a stage.

        Args:
            stage: Its name.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The pairs by suspicion, and what the head of the list says.

    Attributes:
        scores: Higher is more suspicious; one per pair.
        ranked: Places of the suspicious pairs, most suspicious first.
        accused: The words that stand out.
        margin: Similarity of pairs that do not belong together (m).
        overfitted: What the overfitting showed; None where it was left out.
    """

    scores: Float[Tensor, " n"]
    ranked: Int64[Tensor, " s"]
    accused: Accused
    margin: float
    overfitted: Overfitted | None


def find_prior(
    case: Case,
    *,
    reference: DualEncoder | None = None,
    detection: Detection | None = None,
    suspicious_rate: float,
    min_suspicious: int,
) -> Prior:
    """Return which pairs are suspicious and which to trust: stage 0.

    Args:
        case: The suspect model and its pairs.
        reference: A clean model.
        detection: One score per pair, in place of the reference.
        suspicious_rate: Share of suspicious pairs.
        min_suspicious: Least number of them.

    Returns:
        The split.

    Raises:
        InputError: If there is neither reference nor detection, or both, or the
            detection is of other pairs.
    """
    if (reference is None) == (detection is None):
        got = "neither" if reference is None else "both"
        raise InputError(
            f"expected a reference or a detection, got {got}; give the clean model "
            "that the suspect one started from, or one score per pair"
        )
    with case.timed("prior"):
        if detection is not None:
            if detection.ids != case.data.ids:
                raise InputError(
                    f"expected a detection of these {len(case.data)} pairs, got one of "
                    f"{len(detection.ids)} with other ids; score the same set"
                )
            return split_by_detection(
                detection,
                suspicious_rate=suspicious_rate,
                min_suspicious=min_suspicious,
                seed=case.seed,
            )
        assert reference is not None
        a, b = (
            similarities(net, case.data, stage=stage, runtime=case.runtime)
            for net, stage in ((reference, "reference"), (case.model, "score"))
        )
        return split_by_similarity(
            b,
            a,
            suspicious_rate=suspicious_rate,
            min_suspicious=min_suspicious,
            seed=case.seed,
        )


def rank_pairs(
    case: Case,
    prior: Prior,
    *,
    discovery: Discovery,
    rank: Rank,
    overfitting: Overfitting,
    test: WordTest,
) -> Ranking:
    """Rank the suspicious pairs and look for words: stage 1 and half of stage 2.

    Args:
        case: The suspect model and its pairs.
        prior: Which pairs are suspicious.
        discovery: Whether to overfit them.
        rank: What they are ranked by.
        overfitting: How.
        test: What a word must show.

    Returns:
        The ranking.

    Raises:
        InputError: If the pairs are to be overfitted and there is nothing to compare
            with.
    """
    compared = prior.similarity_reference is not None
    if not compared and (discovery == "overfit" or rank == "similarity"):
        raise InputError(
            "expected similarities under a reference for discovery 'overfit' and rank "
            "'similarity', got a detection without them; give a reference, or take "
            "'auto' and 'gap'"
        )
    with case.timed("words"), computing(case.runtime):
        network = lent(case.model, case.runtime)
        margin = margin_of(network, case.data, prior.normal, runtime=case.runtime)
        drop = Drops(
            network,
            data=case.data,
            rows=prior.suspicious,
            vocabulary=case.vocabulary,
            margin=margin,
            runtime=case.runtime,
        )
        del network
    scores = prior.scores
    if rank == "similarity":
        assert prior.similarity_model is not None
        scores = prior.similarity_model
    ranked = by_score(prior.suspicious, scores)
    accused = _named(case, ranked, test, drop)
    skipped = discovery == "gap" or (discovery == "auto" and accused.is_sure)
    overfitted = None
    if compared and not skipped:
        with case.timed("overfit"):
            overfitted = overfit(
                case.model,
                data=case.data,
                suspicious=prior.suspicious,
                normal=prior.normal,
                settings=overfitting,
                seed=case.seed,
                runtime=case.runtime,
            )
        assert prior.similarity_reference is not None
        risen = overfitted.similarity
        if rank == "gap":
            risen = risen - prior.similarity_reference[prior.suspicious]
        scores = scores.clone()
        scores[prior.suspicious] = risen
        ranked = by_score(prior.suspicious, scores)
        accused = _named(case, ranked, test, drop)
    return Ranking(
        scores=scores,
        ranked=ranked,
        accused=accused,
        margin=margin,
        overfitted=overfitted,
    )


def _named(case: Case, ranked: Tensor, test: WordTest, drop: Drops) -> Accused:
    with case.timed("words"), computing(case.runtime):
        return name_words(ranked, vocabulary=case.vocabulary, test=test, drop=drop)
