"""How a classifier does on clean images, and under a trigger."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import frozen_folded
from bezoar.results import Evaluation
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, Int64, UInt8


@runtime_checkable
class Trigger(Protocol):
    """What an attack shows at test time."""

    @property
    def target_class(self) -> int:
        """The class that the trigger leads to."""

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the images with the trigger."""


def predict(
    model: nn.Module, data: ImageData, *, runtime: Runtime = Runtime()
) -> Int64[Tensor, " n"]:
    """Return the class that a model gives each image.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Images; the labels are not used.
        runtime: Where and how to run.

    Returns:
        Class indices.
    """
    return logits(model, data, runtime=runtime).argmax(1)


def logits(
    model: nn.Module, data: ImageData, *, runtime: Runtime = Runtime()
) -> Float[Tensor, "n k"]:
    """Return a model's outputs.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Images; the labels are not used.
        runtime: Where and how to run.

    Returns:
        Logits in float32 on the CPU.
    """
    device, dtype = runtime.device, runtime.compute_dtype()
    copy = frozen_folded(model, device=device, dtype=dtype)
    outputs = []
    with torch.no_grad():
        for _, images in data.batches(runtime.batch_size):
            outputs.append(copy(images.to(device, dtype)).float().cpu())
    return torch.cat(outputs)


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    attack: Trigger | None = None,
    runtime: Runtime = Runtime(),
) -> Evaluation:
    """Measure clean accuracy and, with an attack, how often its trigger works.

    Images already of the target class are left out of the attack's counts, and the
    rate at which the same images go to the target without a trigger is given beside
    it: that is the floor of a clean model.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Clean, labelled test images.
        attack: The attack whose trigger is shown.
        runtime: Where and how to run.

    Returns:
        The rates and their counts.

    Raises:
        InputError: If the images have no labels, or all are of the target class.
    """
    if not data.is_labelled:
        raise InputError(
            "expected labelled images, got none with a label; accuracy needs labels"
        )
    predicted = predict(model, data, runtime=runtime)
    right = predicted == data.labels
    total = 1 if attack is None else 2
    runtime.progress(Progress(stage="evaluate", done=1, total=total))
    clean_accuracy = right.float().mean().item()
    if attack is None:
        return Evaluation(clean_accuracy=clean_accuracy, num_clean=len(data))
    others = data.labels != attack.target_class
    if not others.any():
        raise InputError(
            f"expected images of other classes than the target {attack.target_class}, "
            "got none; give a test set of all classes"
        )
    victims = data.subset(others)
    shown = ImageData(
        images=attack.apply(victims.images),
        labels=victims.labels,
        ids=victims.ids,
        class_names=victims.class_names,
    )
    hits = predict(model, shown, runtime=runtime) == attack.target_class
    runtime.progress(Progress(stage="evaluate", done=2, total=total))
    own = right[~others].float()
    return Evaluation(
        clean_accuracy=clean_accuracy,
        num_clean=len(data),
        attack_success_rate=hits.float().mean().item(),
        num_triggered=len(victims),
        target_class=attack.target_class,
        target_class_accuracy=own.mean().item() if len(own) else None,
        clean_target_rate=(predicted[others] == attack.target_class)
        .float()
        .mean()
        .item(),
    )
