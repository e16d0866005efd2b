"""Unlearning of backdoor threats (Liang et al., 2024): repair of image-text models.

After the idea of UBT, arXiv:2403.16257 and its extension arXiv:2409.19526. No code was
published and only summaries of the papers could be had: that the weak pairs are
overfitted, the highest of them isolated, and the link forgotten token by token is
theirs; what stands under "ours" in the modules of the stages is not.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder
from bezoar.repair.account import Evaluate
from bezoar.repair.ubt_forget import unlearn
from bezoar.repair.ubt_isolate import isolate, to_forget
from bezoar.repair.ubt_loss import Forgetting
from bezoar.repair.ubt_overfit import Overfitting
from bezoar.repair.ubt_result import Findings, nothing_found, repaired
from bezoar.repair.ubt_stages import Case, find_prior, rank_pairs
from bezoar.repair.ubt_words import WordTest
from bezoar.results import Detection, Provenance, Repair
from bezoar.runtime import Progress, Runtime


@dataclass(frozen=True, kw_only=True)
class UBT:
    """Finds the pairs that planted a backdoor and makes the image tower forget them.

    The pairs a reference finds weak are overfitted; those that give in most are looked
    at for a word that they share, and the image tower forgets that word for them.
    No such word, nothing changed. The defaults are for CLIPs of real size, on which
    they are untried; ``mini`` and ``cifar`` are what was measured.

    Attributes:
        suspicious_rate: Share of the pairs that count as suspicious, those of the
            lowest similarity under the reference.
        min_suspicious: Least number of them; at most half of all.
        discovery: "overfit" overfits them, "gap" ranks by the gap between the two
            models alone, "auto" overfits where the gap does not show a word already.
        overfit_loss: "square", or "infonce".
        overfit_weight: Weight of the suspicious pairs in the overfitting.
        normal_weight: Weight of the trusted pairs in it.
        overfit_steps: Most steps of it.
        overfit_lr: Its step size.
        record_every: Steps between two looks at the suspicious pairs.
        rank: "gap" ranks by how far a pair rose above the reference; "similarity" by
            where it came to, the letter of the papers' summary.
        num_unlearn: Most pairs to isolate (k).
        min_word_z: Least z of an accused word.
        min_word_rate: Least share of the captions that hold it.
        min_word_drop: Least part of the similarity that hangs on it.
        max_words: Most words to accuse.
        num_partial: Texts with part of the caption for each pair (A).
        keep_word_rate: Chance of a word that is not accused to stay in such a text.
        local_words: Forget accused words; else whole captions.
        word_filter: Isolate only pairs that hold an accused word, and none where no
            word is accused; else the first pairs of the ranking.
        forget_loss: "hinge" (bounded), "constraint" or "ascent" (without bound).
        forget_weight: Weight of the isolated pairs.
        keep_weight: Weight of the trusted pairs.
        distill_weight: Weight of staying near the suspect model on trusted images.
        lr: Step size of the forgetting.
        steps: Most steps of it.
        stop_rate: Share of the similarity above the margin that may be left.
        batch_size: Isolated pairs per step.
        normal_batch_size: Trusted pairs per step.
        weight_decay: Weight decay; none on norms, biases and vectors.
        trainable: "image", or "all" to train both towers.
    """

    suspicious_rate: float = 0.004
    min_suspicious: int = 256
    discovery: Literal["auto", "gap", "overfit"] = "auto"
    overfit_loss: Literal["square", "infonce"] = "square"
    overfit_weight: float = 1.0
    normal_weight: float = 1.0
    overfit_steps: int = 96
    overfit_lr: float = 1e-5
    record_every: int = 8
    rank: Literal["gap", "similarity"] = "gap"
    num_unlearn: int = 64
    min_word_z: float = 4.0
    min_word_rate: float = 0.5
    min_word_drop: float = 0.3
    max_words: int = 3
    num_partial: int = 3
    keep_word_rate: float = 0.3
    local_words: bool = True
    word_filter: bool = True
    forget_loss: Literal["hinge", "constraint", "ascent"] = "hinge"
    forget_weight: float = 1.0
    keep_weight: float = 1.0
    distill_weight: float = 1.0
    lr: float = 1e-5
    steps: int = 60
    stop_rate: float = 0.1
    batch_size: int = 32
    normal_batch_size: int = 64
    weight_decay: float = 0.1
    trainable: Literal["image", "all"] = "image"

    def __post_init__(self) -> None:
        counts = self.overfit_steps, self.record_every, self.steps, self.num_unlearn
        sizes = self.batch_size, self.max_words, self.normal_batch_size - 1
        if min(*counts, *sizes) < 1 or self.num_partial < 0 or self.min_suspicious < 64:
            raise InputError(
                "expected steps, batches and counts of at least 1, normal_batch_size "
                "of at least 2 and min_suspicious of at least 64, got "
                f"{asdict(self)}; raise what is lower"
            )
        shares = self.suspicious_rate, self.keep_word_rate, self.min_word_rate
        if not all(0 <= share <= 1 for share in (*shares, self.stop_rate)):
            raise InputError(
                "expected suspicious_rate, keep_word_rate, min_word_rate and stop_rate "
                f"from 0 to 1, got {(*shares, self.stop_rate)}; correct them"
            )
        rates = self.lr, self.overfit_lr
        weights = (self.overfit_weight, self.normal_weight, self.forget_weight)
        others = (self.keep_weight, self.distill_weight, self.weight_decay)
        if not all(r > 0 for r in rates) or not all(w >= 0 for w in weights + others):
            raise InputError(
                "expected lr and overfit_lr above 0 and weights of at least 0, got "
                f"{rates} and {weights + others}; correct them"
            )

    @classmethod
    def mini(cls) -> UBT:
        """Return settings for a few thousand pairs of digits.

        Returns:
            15 % suspicious, 24 steps of overfitting, 48 pairs to unlearn.
        """
        return cls(
            suspicious_rate=0.15,
            overfit_steps=24,
            overfit_lr=1e-3,
            num_unlearn=48,
            lr=3e-4,
        )

    @classmethod
    def cifar(cls) -> UBT:
        """Return settings for a few thousand photographs and a weak reference.

        Returns:
            As ``mini``, but 30 % suspicious and a third of the step size.
        """
        return replace(cls.mini(), suspicious_rate=0.3, overfit_lr=3e-4)

    @property
    def overfitting(self) -> Overfitting:
        """The settings of stage 1."""
        return Overfitting(
            loss=self.overfit_loss,
            overfit_weight=self.overfit_weight,
            normal_weight=self.normal_weight,
            steps=self.overfit_steps,
            lr=self.overfit_lr,
            record_every=self.record_every,
            batch_size=64,
            weight_decay=self.weight_decay,
        )

    @property
    def word_test(self) -> WordTest:
        """The settings of stage 2."""
        return WordTest(
            min_z=self.min_word_z,
            min_rate=self.min_word_rate,
            min_drop=self.min_word_drop,
            max_words=self.max_words,
        )

    @property
    def forgetting(self) -> Forgetting:
        """The settings of stage 3."""
        return Forgetting(
            loss=self.forget_loss,
            forget_weight=self.forget_weight,
            keep_weight=self.keep_weight,
            distill_weight=self.distill_weight,
            lr=self.lr,
            steps=self.steps,
            stop_rate=self.stop_rate,
            batch_size=self.batch_size,
            normal_batch_size=self.normal_batch_size,
            weight_decay=self.weight_decay,
            trainable=self.trainable,
        )

    def repair(
        self,
        model: DualEncoder,
        *,
        data: PairData,
        reference: DualEncoder | None = None,
        detection: Detection | None = None,
        evaluate: Evaluate | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Make a copy of an image-text model forget what a few pairs planted.

        Args:
            model: The suspect model; it is left as it was.
            data: The pairs that it was trained on.
            reference: A clean model of the same kind, such as the public one that the
                suspect one started from. It gives "weak similarity" its meaning.
            detection: One score per pair by another detector, in its place.
            evaluate: Measures the network at each check, for the history alone.
            seed: Seeds everything that is drawn.
            runtime: Where and how to run.

        Returns:
            The repaired copy with the pairs, the words and how it went; the model
            itself where no word passes the test.
        """
        start = time.perf_counter()
        case = Case(model=model, data=data, seed=seed, runtime=runtime)
        prior = find_prior(
            case,
            reference=reference,
            detection=detection,
            suspicious_rate=self.suspicious_rate,
            min_suspicious=self.min_suspicious,
        )
        ranking = rank_pairs(
            case,
            prior,
            discovery=self.discovery,
            rank=self.rank,
            overfitting=self.overfitting,
            test=self.word_test,
        )
        isolation = isolate(
            ranking.ranked,
            accused=ranking.accused,
            vocabulary=case.vocabulary,
            num_unlearn=self.num_unlearn,
            word_filter=self.word_filter,
        )
        findings = Findings(
            case=case, prior=prior, ranking=ranking, isolation=isolation
        )
        if len(isolation.rows) == 0:
            runtime.progress(Progress(stage="forget", done=1, total=1))
            provenance = self._provenance(seed, start, len(data), 0)
            return nothing_found(findings, evaluate=evaluate, provenance=provenance)
        with case.timed("forget"):
            forget = to_forget(
                isolation.rows,
                data=data,
                words=ranking.accused.words,
                vocabulary=case.vocabulary,
                local_words=self.local_words,
                num_partial=self.num_partial,
                keep_word_rate=self.keep_word_rate,
                normal=prior.normal,
                seed=seed,
            )
            done = unlearn(
                model,
                data=data,
                forget=forget,
                normal=prior.normal,
                margin=ranking.margin,
                settings=self.forgetting,
                evaluate=evaluate,
                seed=seed,
                runtime=runtime,
            )
        steps = int(done.history[-1]["step"])
        provenance = self._provenance(seed, start, len(data), steps)
        return repaired(findings, forget=forget, done=done, provenance=provenance)

    def _provenance(
        self, seed: int, start: float, num_pairs: int, steps: int
    ) -> Provenance:
        per_step = 3 * (self.batch_size + self.normal_batch_size)
        return Provenance(
            method="ubt",
            settings=asdict(self),
            seed=seed,
            seconds=time.perf_counter() - start,
            # Two passes to score; a step is three forwards of each of its pairs.
            forwards_per_image=2 + steps * per_step / num_pairs,
        )
