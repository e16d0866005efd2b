"""Which images carry what makes a set unlearnable, from what was taken out of it.

After the last experiment of D-VAE (Yu et al., ICML 2024, arXiv:2405.01460), which puts
the perturbations that it found on images of other classes. A network that learns from
those learns the perturbations alone; shown the images as they were given, it tells the
class of those that carry them, and of no others.

The public code shifts classes by a fixed number. Then the image still tells the label,
by another rule; here each perturbation is put on a random image, of any class.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.detect.column_verdict import Measured, as_detection
from bezoar.detect.decoys import by_decoys
from bezoar.errors import InputError
from bezoar.metrics import logits
from bezoar.models import Architecture
from bezoar.results import Detection, Provenance
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, UInt8
from bezoar.train import Training, train_classifier


@dataclass(frozen=True, kw_only=True)
class ShortcutTransplant:
    """Scores images by whether a network that learnt perturbations tells their class.

    Needs the perturbations that D-VAE took out, ``extras`` of its result. Blind to
    noise that starts anew in each image, such as AR, for D-VAE cannot predict it.

    Attributes:
        epochs: Passes over the images when the network is trained.
        width: Channels of the network's first layer.
        false_discovery_rate: Share of innocents aimed at among the flagged.

    Example:
        >>> from bezoar.data import noise_images
        >>> data = noise_images(8)
        >>> none = torch.zeros(8, 3, 8, 8)
        >>> quick = ShortcutTransplant(epochs=1, width=2)
        >>> quick.detect(data, perturbation=none).verdict.status
        'nothing found'
    """

    epochs: int = 20
    width: int = 16
    false_discovery_rate: float = 0.10

    def __post_init__(self) -> None:
        rate = self.false_discovery_rate
        if min(self.epochs, self.width) < 1 or not 0 < rate < 1:
            raise InputError(
                "expected epochs and width of at least 1 and false_discovery_rate "
                f"between 0 and 1, got {self.epochs}, {self.width} and {rate:g}; "
                "correct them"
            )

    def detect(
        self,
        data: ImageData,
        *,
        perturbation: Float[Tensor, "n c h w"],
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Score every image by whether what was taken out of it tells its class.

        The result for an image depends on the others; it is repeatable from its seed.

        Args:
            data: Labelled images as they were given.
            perturbation: What was taken out of each, in units of [0, 1]:
                ``extras["rough_perturbation"]`` of D-VAE.
            seed: Seeds the choice of the donors, the network and the order.
            runtime: Where and how to run.

        Returns:
            Scores log p(label | image), and a verdict: "found" where labels are told
            that images of other classes are not given as surely.
        """
        start = time.perf_counter()
        _check(data, perturbation)
        moved = replace(data, images=transplanted(data, perturbation, seed=seed))
        network = Architecture(
            name="convnet", num_classes=len(data.class_names), width=self.width
        ).build(seed)
        trained = train_classifier(
            network,
            data=moved,
            settings=Training(epochs=self.epochs),
            seed=seed,
            runtime=replace(runtime, work_dir=None),
        )
        output = logits(trained, data, runtime=runtime).log_softmax(1)
        scores = output.gather(1, data.labels[:, None]).flatten()
        measured = Measured(
            ids=data.ids,
            labels=data.labels,
            class_names=data.class_names,
            groups=data.labels,
            scores=scores,
            low=-scores,
            columns={
                "label_log_probability": scores,
                "predicted": output.argmax(1).float(),
            },
            sign="a network that saw their noise on other images tells their class",
            reason=lambda i: _reason(scores[i].item()),
        )
        decision = by_decoys(
            output, data.labels, false_discovery_rate=self.false_discovery_rate
        )
        return as_detection(
            measured,
            decision,
            rule="decoys",
            provenance=Provenance(
                method="shortcut-transplant",
                settings=asdict(self),
                seed=seed,
                seconds=time.perf_counter() - start,
                forwards_per_image=3 * self.epochs + 1,
            ),
        )


def transplanted(
    data: ImageData, perturbation: Float[Tensor, "n c h w"], *, seed: int
) -> UInt8[Tensor, "n c h w"]:
    """Put each image's perturbation on another image, whatever its class.

    Args:
        data: The images.
        perturbation: One for each.
        seed: Seeds which image each is put on.

    Returns:
        For each image the other one with its perturbation; the label goes with it.
    """
    donors = torch.randperm(len(data), generator=generator(seed, "transplant"))
    found = torch.empty_like(data.images)
    for rows in torch.arange(len(data)).split(1024):
        shown = data.images[donors[rows]].float() / 255 + perturbation[rows].float()
        found[rows] = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    return found


def _reason(score: float) -> str:
    return (
        "a network that saw its noise on another image gives its label "
        f"{math.exp(score):.0%}"
    )


def _check(data: ImageData, perturbation: Tensor) -> None:
    if not data.is_labelled:
        raise InputError(
            f"expected labelled images, got {len(data)} without labels; what is looked "
            "for goes with the label"
        )
    if perturbation.shape != data.images.shape:
        raise InputError(
            f"expected one perturbation per image, {tuple(data.images.shape)}, got "
            f"{tuple(perturbation.shape)}; give those that D-VAE took out of this set"
        )
