"""EPIC: images that stand alone in the space of gradients are left out of training.

Yang, Liu and Mirzasoleiman, "Not All Poisons are Created Equal: Robust Training against
Data Poisoning", ICML 2022, https://arxiv.org/abs/2210.09671. Poison that works pulls
the network to where no clean image pulls it, so that its gradient has no like among
those of its class. Images that stand for nobody but themselves are dropped while the
network is trained.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from bezoar.data import ImageData
from bezoar.detect.column_verdict import Measured, as_detection
from bezoar.detect.own_network import own_network
from bezoar.detect.pruning import Pruning, check_subset_rate, train_pruned
from bezoar.errors import InputError
from bezoar.metrics.thresholds import Decision
from bezoar.results import Detection, Provenance
from bezoar.runtime import Runtime
from bezoar.train import Training


@dataclass(frozen=True, kw_only=True)
class Epic:
    """Trains a network of its own, and flags the images that the training drops.

    The model in question is not looked at. It drops a share of every set, a clean one
    as well: it has no verdict. Training depends on the order of the images and on the
    machine; it is repeatable from its seed on one machine.

    Attributes:
        subset_rate: Medoids of a class as a share of the images that it still has;
            the authors take 0.1, 0.2 and 0.3. More medoids drop more images.
        start_epoch: Epochs before the first images are dropped.
        every: Epochs from there to the next time.
        epic_epochs: Epochs of the training.
        epic_batch: Images per step.
        lr: Step size at the start; a tenth of it in the last quarter of the epochs.
        augment: "none" or "crop_flip" (shift by up to an eighth, mirror).
        epic_width: Channels of the first layer of the network, a small convnet.

    Example:
        >>> from bezoar.data import noise_images
        >>> found = Epic(epic_epochs=2, start_epoch=1).detect(noise_images(8))
        >>> found.scores.shape, found.verdict.status
        (torch.Size([8]), 'ranking')
    """

    subset_rate: float = 0.2
    start_epoch: int = 10
    every: int = 10
    epic_epochs: int = 40
    epic_batch: int = 128
    lr: float = 0.1
    augment: Literal["none", "crop_flip"] = "crop_flip"
    epic_width: int = 32

    def __post_init__(self) -> None:
        check_subset_rate(self.subset_rate)
        if not 0 <= self.start_epoch < self.epic_epochs or self.every < 1:
            raise InputError(
                f"expected start_epoch from 0 to below epic_epochs ({self.epic_epochs})"
                f" and every of at least 1, got {self.start_epoch} and {self.every}; "
                "correct them, or nothing would be dropped"
            )
        if self.epic_width < 1:
            raise InputError(
                f"expected epic_width of at least 1, got {self.epic_width}; raise it"
            )
        self._protocol()  # checks epochs, lr and batch_size

    @property
    def uses_model(self) -> bool:
        """Whether it looks at the model at all: it trains one of its own."""
        return False

    def detect(
        self,
        data: ImageData,
        *,
        model: nn.Module | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Train on the set, and flag what is dropped on the way.

        Args:
            data: Labelled images of at least two classes; others are an
                ``InputError``.
            model: Not used.
            seed: Seeds the network and the training.
            runtime: Where and how to run; a killed training begins anew.

        Returns:
            Scores: the epochs that an image was left out of, 0 where it never was,
            plus half the distance of its gradient to its medoid, or to the next where
            it was alone, which is below 1. The status is "ranking".
        """
        del model
        start = time.perf_counter()
        pruning = Pruning(data.labels, subset_rate=self.subset_rate)
        train_pruned(
            own_network(data, width=self.epic_width, seed=seed),
            data=data,
            pruning=pruning,
            start_epoch=self.start_epoch,
            every=self.every,
            settings=self._protocol(),
            seed=seed,
            runtime=runtime,
        )
        return self._packed(
            data, pruning, seed=seed, seconds=time.perf_counter() - start
        )

    def _protocol(self) -> Training:
        return Training(
            epochs=self.epic_epochs,
            lr=self.lr,
            batch_size=self.epic_batch,
            schedule="steps",
            augment=self.augment,
        )

    def _packed(
        self, data: ImageData, pruning: Pruning, *, seed: int, seconds: float
    ) -> Detection:
        dropped = ~pruning.kept
        left_out = (self.epic_epochs - pruning.epoch).where(dropped, 0).float()
        scores = left_out + pruning.distance / 2  # of two gradients at most sqrt(2)
        measured = Measured(
            ids=data.ids,
            labels=data.labels,
            class_names=data.class_names,
            groups=data.labels,
            scores=scores,
            low=-scores,
            columns={
                "epochs_left_out": left_out,
                "gradient_distance": pruning.distance,
            },
            sign="their gradients have no like in their class",
            reason=lambda i: _reason(i, pruning, measured),
        )
        count, total = int(dropped.sum()), len(data)
        rounds = len(range(self.start_epoch, self.epic_epochs, self.every))
        decision = Decision(
            status="ranking",
            flagged=dropped,
            p_values=None,
            # As far as it can tell, all: of a clean set it drops no fewer.
            expected_false_alarms=count,
        )
        shown = 3 * (self.epic_epochs - left_out.mean().item())
        return as_detection(
            measured,
            decision,
            rule="isolated",
            provenance=Provenance(
                method="epic",
                settings=asdict(self),
                seed=seed,
                seconds=seconds,
                forwards_per_image=shown + rounds,
            ),
            health=(
                f"{count:,} of {total:,} images were dropped ({count / total:.0%}); "
                "EPIC drops images of clean sets as well, so that this says nothing "
                "of whether there is poison",
            ),
        )


def _reason(place: int, pruning: Pruning, measured: Measured) -> str:
    own = pruning.labels == pruning.labels[place]
    middle = pruning.distance[own].median().item()
    return (
        f"dropped before epoch {int(pruning.epoch[place]) + 1}: of class "
        f"{measured.name(place)} it stood for no other, its gradient "
        f"{pruning.distance[place].item():.2g} from the nearest other medoid, half "
        f"of the class less than {middle:.2g}"
    )
