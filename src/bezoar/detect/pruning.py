"""Training on fewer and fewer images: those that stand alone are dropped on the way.

The part of EPIC (Yang, Liu and Mirzasoleiman, ICML 2022, arXiv 2210.09671) that any
training can take, also that of a linear layer on frozen features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.metrics import logits
from bezoar.metrics.facility_location import clusters, facility_location
from bezoar.runtime import Runtime
from bezoar.shapes import Bool, Float, Int64
from bezoar.train import Training, train_classifier


class Pruning:
    """Keeps account of which images of a set are still learnt.

    Attributes:
        labels: Class indices of the images.
        subset_rate: Medoids as a share of the images that a class still has.
        kept: Whether an image is still learnt.
        epoch: Before which epoch an image was dropped; -1 for those kept.
        distance: Of an image's gradient to its medoid, or where it is alone to the
            next, when its class was last looked at while it was learnt; 0 before that.

    Example:
        >>> outputs = torch.tensor([[4.0, 0.0], [3.9, 0.0], [-4.0, 0.0], [4.0, 0.1]])
        >>> pruning = Pruning(torch.zeros(4, dtype=torch.int64), subset_rate=0.5)
        >>> pruning.drop(outputs, epoch=1)
        >>> pruning.kept.tolist()
        [True, True, False, True]
    """

    def __init__(self, labels: Int64[Tensor, " n"], *, subset_rate: float) -> None:
        check_subset_rate(subset_rate)
        self.labels, self.subset_rate = labels, subset_rate
        self.kept: Bool[Tensor, " n"] = torch.ones(len(labels), dtype=torch.bool)
        self.epoch: Int64[Tensor, " n"] = torch.full((len(labels),), -1)
        self.distance: Float[Tensor, " n"] = torch.zeros(len(labels))

    def drop(self, outputs: Float[Tensor, "n k"], *, epoch: int) -> None:
        """Drop the images that stand alone in their class, for good.

        Args:
            outputs: Logits of all images; those of dropped ones are not looked at.
            epoch: The epoch that is to come.
        """
        gradients = last_layer_gradients(outputs, self.labels)
        for label in self.labels[self.kept].unique():
            own = (self.kept & (self.labels == label)).nonzero().flatten()
            if len(own) < 2:
                continue  # it would be dropped for having no company at all
            alone, distance = isolated(gradients[own], subset_rate=self.subset_rate)
            self.distance[own] = distance
            self.kept[own[alone]] = False
            self.epoch[own[alone]] = epoch


def last_layer_gradients(
    outputs: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Return the slope of each image's cross entropy along its logits.

    Args:
        outputs: Logits.
        labels: Class indices.

    Returns:
        Softmax minus one-hot label, which bounds how gradients of the whole network
        differ within a class.

    Example:
        >>> last_layer_gradients(torch.zeros(1, 2), torch.tensor([0])).tolist()
        [[-0.5, 0.5]]
    """
    truth = functional.one_hot(labels, outputs.shape[1])
    return outputs.float().softmax(1) - truth


def isolated(
    gradients: Float[Tensor, "m k"], *, subset_rate: float
) -> tuple[Bool[Tensor, " m"], Float[Tensor, " m"]]:
    """Tell which images of one class stand for nobody but themselves.

    Args:
        gradients: Of the class's images, at least two.
        subset_rate: Medoids as a share of them, rounded: at least one, and
            fewer than there are images.

    Returns:
        Whether an image is alone in its cluster, and how far its medoid is, or for
        those alone the next. Images with an equal among the medoids are not alone.
    """
    most = len(gradients) - 1  # with one for each, all would be alone
    budget = min(max(1, round(subset_rate * len(gradients))), most)
    medoids = facility_location(gradients, num_medoids=budget)
    found = clusters(gradients, medoids)
    alone = torch.zeros(len(gradients), dtype=torch.bool)
    alone[medoids] = found.sizes == 1
    return alone, found.distance


def train_pruned(
    model: nn.Module,
    *,
    data: ImageData,
    pruning: Pruning,
    start_epoch: int = 10,
    every: int = 10,
    settings: Training,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> nn.Module:
    """Train a copy of a classifier on fewer and fewer images.

    Args:
        model: Maps images in [0, 1] to logits; it is left as it was.
        data: Labelled images of at least two classes; others are an ``InputError``.
        pruning: What was dropped so far, as a rule nothing; carried on in place.
        start_epoch: Epochs before the first images are dropped.
        every: Epochs from there to the next time.
        settings: The protocol.
        seed: Seeds the order and the augmentation.
        runtime: Where and how to run; nothing is kept, for what was dropped would not
            be: a killed training begins anew.

    Returns:
        The trained copy in eval mode on the CPU.
    """
    quiet = replace(runtime, progress=Runtime().progress)
    coming = iter(range(settings.epochs))

    def before(network: nn.Module) -> Tensor:
        epoch = next(coming)
        if epoch >= start_epoch and (epoch - start_epoch) % every == 0:
            pruning.drop(logits(network, data, runtime=quiet), epoch=epoch)
        return pruning.kept.nonzero().flatten()

    return train_classifier(
        model,
        data=data,
        settings=settings,
        before_epoch=before,
        seed=seed,
        runtime=replace(runtime, work_dir=None),
    )


def check_subset_rate(subset_rate: float) -> None:
    """Check the share of a class that stands for all of it.

    Args:
        subset_rate: The share.

    Raises:
        InputError: If it is not between 0 and 1.
    """
    if not 0 < subset_rate < 1:
        raise InputError(
            f"expected a subset_rate between 0 and 1, got {subset_rate}; it is the "
            "share of a class that stands for all of it"
        )
