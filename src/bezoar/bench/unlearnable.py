"""A set made unlearnable, what purifiers make of it, and how that is judged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.metrics import evaluate, psnr, separability
from bezoar.models import Architecture
from bezoar.runtime import Runtime
from bezoar.shapes import Float
from bezoar.train import Training, train_classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class UnlearnableBench:
    """What all rows of a table share.

    Attributes:
        train: The clean training images.
        test: Test images.
        seed: Seeds the networks.
        runtime: Where and how to run.
        protocol: How the networks are trained.
    """

    train: ImageData
    test: ImageData
    seed: int
    runtime: Runtime
    protocol: Training

    def accuracy(self, data: ImageData) -> float:
        """Return the accuracy on clean images of a small network trained on a set.

        Args:
            data: The set.

        Returns:
            The share of test images that it gets right.
        """
        return self.accuracies(data, num_networks=1)[0]

    def accuracies(self, data: ImageData, *, num_networks: int) -> list[float]:
        """Return the accuracies of several small networks trained on a set.

        Args:
            data: The set.
            num_networks: How many are trained, from the bench's seed on.

        Returns:
            The shares of test images that they get right.
        """
        network = Architecture(name="convnet", num_classes=10, width=16)
        found = []
        for seed in range(self.seed, self.seed + num_networks):
            model = train_classifier(
                network.build(seed),
                data=data,
                settings=self.protocol,
                seed=seed,
                runtime=self.runtime,
            )
            judged = evaluate(model, self.test, runtime=self.runtime)
            found.append(judged.clean_accuracy)
        return found

    def told(self, data: ImageData) -> dict[str, float]:
        """Return how well the class is told from what sets images apart from clean.

        Args:
            data: Images made from the training images.

        Returns:
            Accuracy of linear rules on held-out images, by what they look at.
        """
        residual = (data.images.float() - self.train.images.float()) / 255
        found = separability(residual, self.train.labels)
        return {name: round(value, 3) for name, value in found.items()}

    def row(self, data: ImageData, *, num_networks: int = 1) -> dict[str, float]:
        """Return one line of the table.

        Args:
            data: Images made from the training images.
            num_networks: How many are trained on it.

        Returns:
            "accuracy" of the first network, "mean_accuracy" of several, what ``told``
            returns, and "psnr" where images differ.
        """
        accuracies = self.accuracies(data, num_networks=num_networks)
        mean = sum(accuracies) / num_networks
        near = psnr(self.train.images, data.images)
        shown = near[near.isfinite()].mean().item()
        return {
            "accuracy": round(accuracies[0], 4),
            **({"mean_accuracy": round(mean, 4)} if num_networks > 1 else {}),
            **self.told(data),
            **({"psnr": round(shown, 2)} if shown == shown else {}),
        }

    def left(self, data: ImageData, *, poisoned: ImageData) -> float:
        """Return how much of what was added is still there.

        Args:
            data: What was made of the poisoned images.
            poisoned: The poisoned images.

        Returns:
            Its height along what was added, 1 for all of it.
        """
        added = poisoned.images.float() - self.train.images.float()
        still = data.images.float() - self.train.images.float()
        return round(((still * added).sum() / (added * added).sum()).item(), 3)

    def cosine(self, taken: Float[Tensor, "n c h w"], *, poisoned: ImageData) -> float:
        """Return how far what was taken out points along what had been added.

        Args:
            taken: What a purifier subtracted.
            poisoned: The poisoned images.

        Returns:
            The mean cosine, at most 1.
        """
        added = (poisoned.images.float() - self.train.images.float()).flatten(1)
        both = torch.cosine_similarity(taken.float().flatten(1), added)
        return both.mean().item()
