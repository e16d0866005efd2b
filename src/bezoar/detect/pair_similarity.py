"""Suspicious pairs by how similar image and caption are: stage 0 of UBT by itself.

A planted pair is weak under a clean reference and strong under the model that learnt
it; the gap tells. Without a reference the similarity itself ranks, as in the filter of
the CleanCLIP code (Bansal et al., ICCV 2023, arXiv:2303.03323), which removes the most
similar 2 %.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

from bezoar.data import PairData
from bezoar.detect.column_verdict import Measured, as_detection, check_rates, decide
from bezoar.errors import InputError
from bezoar.metrics import similarities
from bezoar.models import DualEncoder
from bezoar.results import Detection, Provenance, Scores
from bezoar.runtime import Runtime

MODEL, REFERENCE = "similarity_model", "similarity_reference"


@dataclass(frozen=True, kw_only=True)
class PairSimilarity:
    """Scores pairs by the cosine of image and caption, against a reference.

    Web captions are often wrong, and a model learns wrong pairs as well; so the default
    only ranks. UBT goes on from here with words, and can say "nothing found".

    Attributes:
        threshold: Rule that turns scores into a verdict: "review" flags the
            ``review_rate`` of the highest scores, "none" ranks.
        review_rate: Share of the pairs that "review" flags.
    """

    threshold: Literal["none", "review"] = "none"
    review_rate: float = 0.02

    def __post_init__(self) -> None:
        check_rates(false_discovery_rate=0.5, review_rate=self.review_rate)

    def detect(
        self,
        data: PairData,
        *,
        model: DualEncoder,
        reference: DualEncoder | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Score every pair.

        Args:
            data: The pairs that the model was trained on.
            model: The suspect model; it is left as it was.
            reference: A clean model, left as it was; without one the similarity under
                the suspect model is the score.
            seed: Recorded; nothing is drawn.
            runtime: Where and how to run.

        Returns:
            A score for each pair, with both cosines as columns.
        """
        start = time.perf_counter()
        scores = self.score(
            data, model=model, reference=reference, seed=seed, runtime=runtime
        )
        return self.conclude(
            scores,
            class_names=data.class_names,
            seed=seed,
            seconds=time.perf_counter() - start,
        )

    def score(
        self,
        data: PairData,
        *,
        model: DualEncoder,
        reference: DualEncoder | None = None,
        seed: int,  # noqa: ARG002
        runtime: Runtime,
    ) -> Scores:
        """Return the cosines of some pairs, such as those of one block.

        Args:
            data: The pairs.
            model: As for ``detect``.
            reference: As for ``detect``.
            seed: As for ``detect``.
            runtime: As for ``detect``.

        Returns:
            One column per model.
        """
        columns = {}
        if reference is not None:
            columns[REFERENCE] = similarities(
                reference, data, stage="reference", runtime=runtime
            )
        columns[MODEL] = similarities(model, data, stage="score", runtime=runtime)
        return Scores(ids=data.ids, labels=data.labels, columns=columns)

    def conclude(
        self, scores: Scores, *, class_names: tuple[str, ...], seed: int, seconds: float
    ) -> Detection:
        """Return the verdict on all pairs.

        Args:
            scores: The cosines of all pairs.
            class_names: Names by class index; empty where there are no labels.
            seed: As for ``detect``.
            seconds: Wall-clock time of the work so far.

        Returns:
            The detection.

        Raises:
            InputError: If the cosines are not of this method.
        """
        columns = scores.columns
        if MODEL not in columns:
            raise InputError(
                f"expected the column {MODEL!r}, got {sorted(columns)}; score the "
                "pairs with this method"
            )
        compared = REFERENCE in columns
        found = columns[MODEL] - columns[REFERENCE] if compared else columns[MODEL]

        def reason(place: int) -> str:
            told = f"similarity {columns[MODEL][place].item():.2f} under the model"
            if not compared:
                return told
            weak = columns[REFERENCE][place].item()
            return f"{told}, {weak:.2f} under the reference"

        measured = Measured(
            ids=scores.ids,
            labels=scores.labels,
            class_names=class_names,
            groups=scores.labels,
            scores=found,
            low=-found,
            columns=columns,
            sign="image and caption are nearer to each other than they should be",
            reason=reason,
        )
        decision = decide(
            measured,
            rule=self.threshold,
            false_discovery_rate=0.5,
            review_rate=self.review_rate,
        )
        provenance = Provenance(
            method="pair-similarity",
            settings=asdict(self),
            seed=seed,
            seconds=seconds,
            forwards_per_image=1 + compared,
        )
        return as_detection(
            measured, decision, rule=self.threshold, provenance=provenance
        )
