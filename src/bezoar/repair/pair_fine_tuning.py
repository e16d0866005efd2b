"""Fine-tuning of an image-text model on clean pairs: the simplest baseline."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from bezoar.data import PairData
from bezoar.models import DualEncoder
from bezoar.repair.account import Evaluate
from bezoar.repair.pair_training import trained_on
from bezoar.results import Repair
from bezoar.runtime import Runtime
from bezoar.train import ClipTraining, contrast


@dataclass(frozen=True, kw_only=True)
class PairFineTuning:
    """Fine-tunes an image-text model on clean pairs with the usual contrast.

    What CleanCLIP does without its views. The pairs must be known to be clean.

    Attributes:
        epochs: Passes over the clean pairs.
        lr: Highest step size of AdamW.
        batch_size: Pairs per step.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Weight decay; none on norms, biases and vectors.
    """

    epochs: int = 10
    lr: float = 1e-5
    batch_size: int = 64
    warmup_steps: int = 50
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        _ = self.training  # which checks the settings

    @property
    def training(self) -> ClipTraining:
        """The settings of the training loop."""
        return ClipTraining(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
        )

    def repair(
        self,
        model: DualEncoder,
        *,
        data: PairData,
        evaluate: Evaluate | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Fine-tune a copy of an image-text model on clean pairs.

        Args:
            model: The suspect model; it is left as it was.
            data: Clean pairs; not those that the model was trained on.
            evaluate: Measures the model before and after, for the history alone.
            seed: Seeds the order.
            runtime: Where and how to run.

        Returns:
            The copy; whether it has forgotten anything is not known to the method.
        """
        return trained_on(
            model,
            data=data,
            settings=self.training,
            objective=contrast,
            method="pair-fine-tuning",
            own_settings=asdict(self),
            forwards_per_image=3 * self.epochs,
            start=time.perf_counter(),
            evaluate=evaluate,
            seed=seed,
            runtime=runtime,
        )
