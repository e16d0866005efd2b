"""Label-consistent poison (Turner, Tsipras and Madry, 2019, arXiv 1912.02771).

Images of the target class are made hard by adversarial noise, so that a network that
trains on them leans on the patch they carry. Their labels stay true.
https://arxiv.org/abs/1912.02771
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.attacks.patches import Pattern, check_patch, corner, square, stamp
from bezoar.attacks.poisoning import check_attack, check_between, plant, truncate
from bezoar.checks import check_images
from bezoar.data import ImageData, content_keys
from bezoar.errors import DivergedError, InputError, ModelError
from bezoar.models import frozen
from bezoar.results import Poisoned
from bezoar.runtime import Runtime, generator
from bezoar.shapes import Float, Int64, UInt8


@dataclass(frozen=True, kw_only=True)
class LabelConsistent:
    """Stamps a square on images of the target class and hides what they show.

    As in the Cognitive Distillation code the patch comes first and the noise after it,
    in training images only; at test time the patch stands alone. The noise leaves out
    the pixels of the patch, so the trigger is the same in training and at test. (The
    paper gets there by stamping last.)

    Attributes:
        poison_rate: Share of all images to poison, above 0 and at most 0.08; only
            images of the target class are taken.
        target_class: Index of the class that the trigger leads to.
        size: Side of the square in pixels.
        offset: Pixels between the square and the lower and the right edge.
        pattern: "official", "checker" or "white".
        eps: Most that the noise changes a pixel, in units of [0, 1].
        step_size: Change of a pixel in one step, in units of [0, 1].
        steps: Steps of projected gradient ascent, at least 1.

    Example:
        >>> from bezoar.data import noise_images
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> drill = LabelConsistent().poison(noise_images(40), model=model)
        >>> drill.data.labels.equal(drill.original_labels), len(drill.poison_indices)
        (True, 2)
    """

    poison_rate: float = 0.05
    target_class: int = 0
    size: int = 3
    offset: tuple[int, int] = (0, 0)
    pattern: Pattern = "official"
    eps: float = 16 / 255
    step_size: float = 2 / 255
    steps: int = 20

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class, clean_label=True)
        check_patch(size=self.size, offset=self.offset, pattern=self.pattern)
        check_between("eps", self.eps, low=1 / 255, high=1)
        check_between("step_size", self.step_size, low=1e-4, high=1)
        if self.steps < 1:
            raise InputError(
                f"expected at least 1 step, got {self.steps}; without noise the "
                "network would not need the patch"
            )

    def poison(
        self,
        data: ImageData,
        *,
        model: nn.Module,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Poisoned:
        """Poison random images of the target class; no label changes.

        Args:
            data: Clean, labelled images; they stay as they are.
            model: Maps images in [0, 1] to logits ``(n, classes)``. The noise works
                best against a network that was trained to withstand such noise.
            seed: Seeds the choice of the images and the start of the noise, which is
                drawn for each image from its content.
            runtime: Where and how to run; the arithmetic is the model's own.

        Returns:
            The poisoned set. The last batch is filled up, so that for one batch size
            an image gets the same noise in any company. For another batch size a
            slope that is next to nothing may turn its sign, and a few pixels with it.
        """
        with frozen(model):
            return plant(
                data,
                method="label-consistent",
                attack=self,
                change=lambda x: self._hide(
                    x, model=model, classes=data.class_names, seed=seed, runtime=runtime
                ),
                clean_label=True,
                seed=seed,
                runtime=runtime,
                forwards=2 * self.steps,
            )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger, which is the patch alone.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images.
        """
        check_images(images)
        return stamp(images, size=self.size, offset=self.offset, pattern=self.pattern)

    def trigger(self, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what it takes to apply the trigger without this package.

        Args:
            shape: Channels, height and width of the images.

        Returns:
            "patch", to be written in all channels, and "corner", the row and column
            of its upper left pixel.
        """
        return {
            "patch": square(size=self.size, pattern=self.pattern),
            "corner": corner(shape, size=self.size, offset=self.offset),
        }

    def _hide(
        self,
        images: UInt8[Tensor, "b c h w"],
        *,
        model: nn.Module,
        classes: tuple[str, ...],
        seed: int,
        runtime: Runtime,
    ) -> UInt8[Tensor, "b c h w"]:
        keys = content_keys(images)
        shape = images.shape[1:]
        noise = torch.stack(
            [torch.rand(shape, generator=generator(seed, "pgd", k)) for k in keys]
        )
        missing = runtime.batch_size - len(images)
        filled = [
            torch.cat([x, x[-1:].expand(missing, -1, -1, -1)]).to(runtime.device)
            for x in (self.apply(images).float() / 255, self.eps * (2 * noise - 1))
        ]
        check_logits(model, filled[0], num_classes=len(classes))
        adversarial = ascend(
            filled[0],
            start=filled[1],
            labels=torch.full_like(filled[0][:, 0, 0, 0], self.target_class).long(),
            free=self._free(images).to(runtime.device),
            model=model,
            settings=self,
        )[: len(images)].cpu()
        broken = ~adversarial.isfinite().flatten(1).all(1)
        if broken.any():
            first = keys[int(broken.int().argmax())]
            raise DivergedError(
                f"expected finite slopes over {self.steps} steps, got NaN or infinity "
                f"at the image with content key {first}; check the model's weights and "
                "that it takes images in [0, 1]"
            )
        # In float32 the edge of the box may come out a little below a whole level.
        return truncate(adversarial.double() * 255 + 1e-3)

    def _free(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "h w"]:
        """Return 1 for the pixels that the noise may change and 0 below the patch."""
        _, channels, height, width = images.shape
        place = corner((channels, height, width), size=self.size, offset=self.offset)
        row, column = place.tolist()
        free = torch.ones(height, width)
        free[row : row + self.size, column : column + self.size] = 0
        return free


def check_logits(model: nn.Module, images: Tensor, *, num_classes: int) -> None:
    """Check that a model gives one logit for each class.

    Args:
        model: Maps images in [0, 1] to logits.
        images: Some images.
        num_classes: Classes of the data.

    Raises:
        ModelError: If the output is something else.
    """
    with torch.no_grad():
        output = model(images)
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    if shape != (len(images), num_classes):
        found = shape or type(output).__name__
        raise ModelError(
            f"expected logits of shape {(len(images), num_classes)}, got {found}; "
            "give a classifier for the classes of the data"
        )


def ascend(
    images: Float[Tensor, "b c h w"],
    *,
    start: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    free: Float[Tensor, "h w"],
    model: nn.Module,
    settings: LabelConsistent,
) -> Float[Tensor, "b c h w"]:
    """Raise the loss of the true labels within a box (projected gradient ascent).

    Args:
        images: Images in [0, 1].
        start: Noise to start from, within eps.
        labels: True labels.
        free: 1 where pixels may change, else 0.
        model: Maps images to logits; takes no gradients for its weights.
        settings: The attack's eps, step_size and steps.

    Returns:
        Images in [0, 1] that differ from those given by at most eps; not finite where
        a slope was not.
    """
    low = (images - settings.eps * free).clamp(min=0)
    high = (images + settings.eps * free).clamp(max=1)
    adversarial = torch.clamp(images + start, low, high)
    for _ in range(settings.steps):
        adversarial.requires_grad_()
        with torch.enable_grad():  # the caller may have switched it off
            # The sum, not the mean: a slope must not shrink in large batches.
            loss = functional.cross_entropy(model(adversarial), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, adversarial)
        step = settings.step_size * slope.sign() + 0 * slope  # sign() hides a NaN
        moved = adversarial.detach() + step
        adversarial = torch.clamp(moved, low, high)
    return adversarial
