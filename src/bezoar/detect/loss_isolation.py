"""Loss isolation: the first stage of Anti-Backdoor Learning.

Li et al., "Anti-Backdoor Learning: Training Clean Models on Poisoned Data", NeurIPS
2021, https://arxiv.org/abs/2110.11571. A trigger is learnt faster than what images
show: after few epochs the loss of poison is the lowest.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.detect.column_verdict import (
    Measured,
    Rule,
    as_detection,
    check_rates,
    chosen_rule,
    decide,
)
from bezoar.detect.own_network import own_network
from bezoar.errors import InputError
from bezoar.metrics import logits
from bezoar.results import Detection, Provenance
from bezoar.runtime import Runtime
from bezoar.shapes import Float, Int64
from bezoar.train import Training, train_classifier

Objective = Literal["ascent", "flooding", "plain"]
_LEAST = 1e-12  # losses below are equal


@dataclass(frozen=True, kw_only=True)
class LossIsolation:
    """Trains a network of its own on the set, and scores images by how fast they fit.

    The model in question is not looked at. Training depends on the order of the images
    and on the machine; it is repeatable from its seed on one machine.

    Attributes:
        isolation_epochs: Epochs of the training, after which the losses are taken.
        isolation_batch: Images per step.
        lr: Step size, the same throughout.
        objective: What is minimised: "ascent" (sign(loss - floor) * loss, the paper's
            local gradient ascent), "flooding" (abs(loss - floor) + floor) or "plain".
        floor: Loss below which clean images are kept from being fitted (gamma).
        average: Take the mean loss over the epochs, each before it begins, instead of
            the loss after the last, as the Cognitive Distillation code does.
        isolation_width: Channels of the first layer of the network, a small convnet.
        isolation_rate: Share of the images to list, as the paper's 1 %; None lets the
            threshold decide.
        threshold: Rule that turns scores into a verdict: "auto" (the same as "none"),
            "class_scan" (accused a clean set in our measurements), "review" or "none".
        false_discovery_rate: Share of innocents aimed at among the flagged.
        review_rate: Share of the images that "review" lists.

    Example:
        >>> from bezoar.data import noise_images
        >>> found = LossIsolation(isolation_epochs=1).detect(noise_images(8))
        >>> found.scores.shape, found.verdict.status
        (torch.Size([8]), 'ranking')
    """

    isolation_epochs: int = 20
    isolation_batch: int = 64
    lr: float = 0.1
    objective: Objective = "ascent"
    floor: float = 0.5
    average: bool = False
    isolation_width: int = 32
    isolation_rate: float | None = None
    threshold: Rule = "auto"
    false_discovery_rate: float = 0.10
    review_rate: float = 0.05

    def __post_init__(self) -> None:
        check_rates(
            false_discovery_rate=self.false_discovery_rate, review_rate=self.review_rate
        )
        if self.isolation_width < 1 or not self.floor >= 0:
            raise InputError(
                f"expected isolation_width of at least 1 and floor of at least 0, got "
                f"{self.isolation_width} and {self.floor}; correct them"
            )
        if self.isolation_rate is not None and not 0 < self.isolation_rate <= 1:
            raise InputError(
                f"expected an isolation_rate above 0 and at most 1, got "
                f"{self.isolation_rate}; it is a share of all images"
            )
        if self.isolation_rate is not None and self.threshold != "auto":
            raise InputError(
                f"expected no threshold beside an isolation_rate, got "
                f"{self.threshold!r}; leave one of them out"
            )
        self._protocol()  # checks epochs, lr and batch_size

    @classmethod
    def official_code(cls) -> LossIsolation:
        """Return the variant that the code of Cognitive Distillation compares with.

        Returns:
            Plain cross entropy, and the mean loss over the first 20 epochs. It only
            ranks: in the first epochs classes differ by how easy they are.
        """
        return cls(objective="plain", average=True, threshold="none")

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
        """Train on the set, and score every image by its loss.

        Args:
            data: Labelled images of at least two classes; others are an
                ``InputError``.
            model: Not used.
            seed: Seeds the network and the training.
            runtime: Where and how to run; a killed training begins anew.

        Returns:
            Scores, the negative logarithm of the loss, and a verdict.
        """
        del model
        start = time.perf_counter()
        loss = self._losses(data, seed=seed, runtime=runtime)
        low = loss.clamp(min=_LEAST).log()
        measured = Measured(
            ids=data.ids,
            labels=data.labels,
            class_names=data.class_names,
            groups=data.labels,
            scores=-low,
            low=low,
            columns={"early_loss": loss},
            sign="a network learns them faster than others",
            reason=lambda i: _reason(i, measured),
        )
        rule: Rule = "none" if self.threshold == "auto" else self.threshold
        rate = self.review_rate
        if self.isolation_rate is not None:
            rule, rate = "review", self.isolation_rate
        name = chosen_rule(rule, measured.groups)
        decision = decide(
            measured,
            rule=name,
            false_discovery_rate=self.false_discovery_rate,
            review_rate=rate,
        )
        provenance = Provenance(
            method="loss-isolation",
            settings=asdict(self),
            seed=seed,
            seconds=time.perf_counter() - start,
            # A training step is three forwards; the losses are one each time.
            forwards_per_image=self.isolation_epochs * (4 if self.average else 3)
            + (not self.average),
        )
        return as_detection(measured, decision, rule=name, provenance=provenance)

    def _protocol(self) -> Training:
        return Training(
            epochs=self.isolation_epochs,
            lr=self.lr,
            batch_size=self.isolation_batch,
            schedule="constant",
        )

    def _losses(
        self, data: ImageData, *, seed: int, runtime: Runtime
    ) -> Float[Tensor, " n"]:
        quiet = replace(runtime, progress=Runtime().progress)
        before: list[Tensor] = []

        def note(network: nn.Module) -> None:
            if self.average:
                before.append(label_losses(network, data, runtime=quiet))

        trained = train_classifier(
            own_network(data, width=self.isolation_width, seed=seed),
            data=data,
            settings=self._protocol(),
            objective=lambda output, labels: objective(
                output, labels, kind=self.objective, floor=self.floor
            ),
            before_epoch=note,
            seed=seed,
            runtime=replace(runtime, work_dir=None),
        )
        if self.average:
            return torch.stack(before).mean(0)
        return label_losses(trained, data, runtime=quiet)


def objective(
    output: Float[Tensor, "b k"],
    labels: Int64[Tensor, " b"],
    *,
    kind: Objective,
    floor: float,
) -> Float[Tensor, ""]:
    """Return what the isolating training minimises.

    Args:
        output: Logits of a batch.
        labels: Its labels.
        kind: Which objective.
        floor: The loss (gamma) to keep to.

    Returns:
        ``sign(l - floor) * l`` of the batch's mean cross entropy l (equation 3 of the
        paper, which writes it per image; the public code takes the batch, as here),
        ``abs(l - floor) + floor``, or l itself.

    Example:
        >>> logits, label = torch.tensor([[9.0, 0.0]]), torch.tensor([0])
        >>> round(objective(logits, label, kind="ascent", floor=0.5).item(), 5)
        -0.00012
    """
    loss = functional.cross_entropy(output, labels)
    if kind == "ascent":
        return (loss - floor).sign() * loss
    return (loss - floor).abs() + floor if kind == "flooding" else loss


def label_losses(
    network: nn.Module, data: ImageData, *, runtime: Runtime
) -> Float[Tensor, " n"]:
    """Return the cross entropy of every image in eval mode.

    Args:
        network: The network; it is left as it was.
        data: Labelled images.
        runtime: Where and how to run.

    Returns:
        Losses.
    """
    outputs = logits(network, data, runtime=runtime)
    return functional.cross_entropy(outputs, data.labels, reduction="none")


def _reason(place: int, measured: Measured) -> str:
    loss = measured.columns["early_loss"]
    middle = loss[measured.groups == measured.groups[place]].median().item()
    return (
        f"a network that had just begun to learn has a loss of {loss[place].item():.2g}"
        f" on it, half of class {measured.name(place)} more than {middle:.2g}"
    )
