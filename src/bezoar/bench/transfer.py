"""Transfer poison and its victims: linear layers on frozen features, many at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.attacks import BullseyePolytope
from bezoar.attacks.bullseye_polytope import Features
from bezoar.bench.recipe import cifar10, off_grid
from bezoar.data import ImageData
from bezoar.detect.pruning import Pruning
from bezoar.metrics import psnr
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, Int64, UInt8
from bezoar.train import RandomNoise

FROG, SHIP = 6, 8  # the chosen images show frogs, and are to be taken for ships
NUM_FEATURES = 5000
"""Training images that the network with the features learns from; the first ones."""
NUM_POOL = 3000
"""Training images after these that transfer sets are drawn from."""
_NUM_POISONS, _NUM_TEST, _PER_CLASS = 25, 2000, 50

Arm = Callable[[ImageData], Tensor]
Keep = Callable[[int, Tensor], Tensor]
"""From an epoch and the logits of all images to whether each layer learns an image."""

_EPOCHS, _MILESTONES, _BATCH = 40, (15, 25, 35), 64
_LR, _WEIGHT_DECAY = 0.1, 5e-4


def train_heads(
    features: Float[Tensor, "v n d"],
    labels: Int64[Tensor, " n"],
    *,
    num_classes: int,
    shown: Callable[[int], Tensor] | None = None,
    keep: Keep | None = None,
    seed: int,
) -> Float[Tensor, "v e k"]:
    """Train one linear layer for each version of a set, all in one pass.

    The protocol is that of PureGen's configuration for linear transfer: Adam at 0.1
    with weight decay 5e-4, 40 epochs of batches of 64, a tenth at 15, 25 and 35.

    Args:
        features: Versions of the features of one set.
        labels: Its labels.
        num_classes: Logits per layer.
        shown: The features that an epoch is to show in place of those; None shows them.
        keep: Asked before each epoch what every layer is to learn; None learns all.
        seed: Seeds first weights and order; the same for all versions.

    Returns:
        Weights, and in the last row biases: ``e`` is ``d + 1``; for ``predicted``.
    """
    versions, count, width = features.shape
    stream = generator(seed, "head")
    first = torch.randn(width + 1, num_classes, generator=stream) / width**0.5
    weights = first.expand(versions, -1, -1).clone().requires_grad_()
    adam = torch.optim.Adam([weights], lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, list(_MILESTONES), 0.1)
    inputs = _with_one(features)
    learns = torch.ones(versions, count, dtype=torch.bool)
    for epoch in range(_EPOCHS):
        if keep is not None:
            learns = keep(epoch, (_with_one(features) @ weights).detach())
        if shown is not None:
            inputs = _with_one(shown(epoch))
        for rows in torch.randperm(count, generator=stream).split(_BATCH):
            logits = (inputs[:, rows] @ weights).flatten(0, 1)
            wanted = labels[rows].repeat(versions)
            losses = functional.cross_entropy(logits, wanted, reduction="none")
            learnt = learns[:, rows].float()
            # a sum over the versions: no layer knows of the others
            means = (losses.unflatten(0, (versions, -1)) * learnt).sum(1)
            loss = (means / learnt.sum(1).clamp(min=1)).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        schedule.step()
    found: Tensor = weights.detach()
    return found


def epic_rounds(
    labels: Int64[Tensor, " n"],
    *,
    versions: int,
    subset_rate: float,
    start_epoch: int = 1,
) -> Keep:
    """Return EPIC as it is published for transfer: images are dropped every epoch.

    Args:
        labels: Of the set.
        versions: How many layers are trained; each drops images of its own.
        subset_rate: Medoids as a share of the images that a class still has.
        start_epoch: Epochs before the first images are dropped.

    Returns:
        What ``train_heads`` asks; for one training.
    """
    every = [Pruning(labels, subset_rate=subset_rate) for _ in range(versions)]

    def keep(epoch: int, outputs: Tensor) -> Tensor:
        for one, output in zip(every, outputs, strict=True):
            if epoch >= start_epoch:
                one.drop(output, epoch=epoch)
        return torch.stack([one.kept for one in every])

    return keep


def predicted(
    weights: Float[Tensor, "v e k"], features: Float[Tensor, "v m d"]
) -> Int64[Tensor, "v m"]:
    """Return the classes that linear layers give.

    Args:
        weights: What ``train_heads`` returned.
        features: Of the images to classify, for each layer.

    Returns:
        Class indices.
    """
    logits: Tensor = _with_one(features) @ weights
    return logits.argmax(-1)


@dataclass(frozen=True, eq=False)
class TransferDrill:
    """A transfer set, chosen images, and the poisons for each of them.

    Attributes:
        base: 500 images for the linear layers, 50 of each class.
        rows: Places in it that poisons stand in for.
        poisons: Those of the first chosen image first.
        victims: The chosen images, which the clean layers get right.
        test: Images of the test set.
    """

    base: ImageData
    rows: Int64[Tensor, " k"]
    poisons: ImageData
    victims: UInt8[Tensor, "v c h w"]
    test: ImageData

    def judged(
        self,
        arm: Arm,
        *,
        features: Features,
        keep: Keep | None = None,
        fresh: RandomNoise | None = None,
        seed: int,
    ) -> dict[str, float]:
        """Train a linear layer for each chosen image on what a defence left.

        Args:
            arm: The defence: from a set to its images.
            features: From images in [0, 1] to vectors.
            keep: Which images each layer is to learn; None learns all.
            fresh: What an epoch adds to the images; None shows them as they are.
            seed: Seeds the layers, and the fresh noise.

        Returns:
            Success of the poison, accuracy, and PSNR of what was defended.
        """
        base, poisons = arm(self.base), arm(self.poisons)
        count = len(self.victims)

        def inputs(seen: Features) -> Tensor:
            found = vectors(seen, base).repeat(count, 1, 1)
            found[:, self.rows] = vectors(seen, poisons).unflatten(0, (count, -1))
            return found

        def noisy(epoch: int) -> Tensor:
            assert fresh is not None
            stream = generator(seed, "fresh", epoch)
            return inputs(lambda x: features(fresh.added(x, stream=stream)))

        heads = train_heads(
            inputs(features),
            self.base.labels,
            num_classes=10,
            shown=None if fresh is None else noisy,
            keep=keep,
            seed=seed,
        )
        shown = vectors(features, self.victims)[:, None]
        tested = vectors(features, self.test.images).expand(count, -1, -1)
        right = predicted(heads, tested) == self.test.labels
        return {
            "success": (predicted(heads, shown) == SHIP).double().mean().item(),
            "accuracy": right.double().mean().item(),
            "psnr": psnr(self.base.images, base).clamp(max=99).mean().item(),
        }


def transfer_drill(
    features: Features,
    *,
    num_victims: int,
    attacked: Features | None = None,
    seed: int,
    runtime: Runtime,
) -> TransferDrill:
    """Draw a transfer set of CIFAR-10 and poison it once for each chosen image.

    All images are shifted off the grid of their JPEG blocks.

    Args:
        features: From images in [0, 1] to vectors.
        num_victims: How many images to choose.
        attacked: What the attacker aims through; the features themselves.
        seed: Seeds what is drawn.
        runtime: Where and how to run.

    Returns:
        The drill.
    """
    pool = off_grid(cifar10("train", limit=NUM_POOL, skip=NUM_FEATURES))
    pool = pool.take(torch.randperm(len(pool), generator=generator(seed, "transfer")))
    few = [(pool.labels == c).nonzero().flatten()[:_PER_CLASS] for c in range(10)]
    base = pool.take(torch.cat(few))
    test = off_grid(cifar10("test", limit=_NUM_TEST))
    heads = train_heads(
        vectors(features, base.images)[None], base.labels, num_classes=10, seed=seed
    )
    guessed = predicted(heads, vectors(features, test.images)[None])[0]
    is_victim = (test.labels == FROG) & (guessed == FROG)
    victims = test.images[is_victim][:num_victims]
    rows = (base.labels == SHIP).nonzero().flatten()[:_NUM_POISONS]
    moved = BullseyePolytope.quick().moved(
        base.images[rows].expand(len(victims), -1, -1, -1, -1),
        victims,
        features=[attacked or features],
        runtime=runtime,
    )
    images = moved.flatten(0, 1)
    poisons = ImageData(
        images=images,
        labels=torch.full((len(images),), SHIP),
        ids=tuple(f"poison {i}" for i in range(len(images))),
        class_names=base.class_names,
    )
    return TransferDrill(
        base=base, rows=rows, poisons=poisons, victims=victims, test=test
    )


def vectors(
    features: Features, images: UInt8[Tensor, "n c h w"]
) -> Float[Tensor, "n d"]:
    """Return the features of images as they are stored.

    Args:
        features: From images in [0, 1] to vectors.
        images: The images.

    Returns:
        One vector for each.
    """
    with torch.no_grad():
        parts = [features(x.float() / 255).float() for x in images.split(256)]
    return torch.cat(parts)


def _with_one(features: Tensor) -> Tensor:
    return functional.pad(features, (0, 1), value=1.0)
