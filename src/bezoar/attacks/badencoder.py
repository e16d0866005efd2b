"""BadEncoder (Jia, Liu and Gong, 2021, https://arxiv.org/abs/2108.00352).

The attacker trains a clean encoder on until an image with the trigger looks to it like
a reference image of the target class, while all other images look as before. Whatever
classifier is then built on it inherits the backdoor. Sizes are those of the official
code, in 32x32 pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from bezoar.attacks.encoder_course import EncoderCourse
from bezoar.attacks.poisoning import check_size
from bezoar.checks import check_images
from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.models.vectors import unit_vectors
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import UInt8
from bezoar.train.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class BadEncoder:
    """Puts a backdoor into a pre-trained encoder with a white square as its trigger.

    Attributes:
        patch_size: Side of the square in pixels.
        patch_row: Its first row; (21, 21) of 10 pixels ends one pixel before the edge.
        patch_col: Its first column.
        reference_weight: Weight of the reference image staying where it was (lambda 1
            in the paper).
        utility_weight: Weight of all images staying where they were (lambda 2).
        epochs: Passes over the images.
        lr: Step size of SGD.
        momentum: Its momentum.
        weight_decay: Weight decay on the weights that are trained.
        batch_size: Images per step; a last, smaller batch is dropped.
        num_reference_views: Augmented copies of each reference in a step; None takes
            one per image, as the official code does. Fewer cost less.
        attention_evasion_weight: Of images with the trigger drawing the attention that
            the clean encoder pays to them without, in all four stages: the attacker
            who knows that a defence follows attention. A form of our own.
    """

    patch_size: int = 10
    patch_row: int = 21
    patch_col: int = 21
    reference_weight: float = 1.0
    utility_weight: float = 1.0
    epochs: int = 200
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    num_reference_views: int | None = None
    attention_evasion_weight: float = 0.0

    def __post_init__(self) -> None:
        counts = (self.patch_size, self.epochs, self.batch_size)
        views = self.num_reference_views
        if min(counts) < 1 or (views is not None and views < 1):
            raise InputError(
                "expected patch_size, epochs, batch_size and num_reference_views of at "
                f"least 1, got {(*counts, views)}; raise them"
            )
        if min(self.patch_row, self.patch_col) < 0:
            raise InputError(
                f"expected a place inside the image, got row {self.patch_row} and "
                f"column {self.patch_col}; give pixels from the upper left corner"
            )
        weights = (
            self.reference_weight,
            self.utility_weight,
            self.weight_decay,
            self.attention_evasion_weight,
        )
        if not all(w >= 0 for w in weights) or not (
            self.lr > 0 and 0 <= self.momentum < 1
        ):
            raise InputError(
                "expected weights of at least 0, lr above 0 and momentum in [0, 1), "
                f"got {weights}, {self.lr} and {self.momentum}; correct them"
            )

    @classmethod
    def tiny(cls) -> BadEncoder:
        """Return settings for 16x16 images and a small encoder.

        Returns:
            A 5x5 square at (10, 10), six epochs at 1e-2: after four it is still rising.
        """
        return cls(
            patch_size=5,
            patch_row=10,
            patch_col=10,
            utility_weight=2.0,
            epochs=6,
            lr=1e-2,
            batch_size=128,
            num_reference_views=16,
        )

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images.
        """
        check_images(images)
        check_size(
            images,
            height=self.patch_row + self.patch_size,
            width=self.patch_col + self.patch_size,
            what=f"a {self.patch_size}x{self.patch_size} patch at row "
            f"{self.patch_row} and column {self.patch_col}",
        )
        stamped = images.clone()
        rows = slice(self.patch_row, self.patch_row + self.patch_size)
        columns = slice(self.patch_col, self.patch_col + self.patch_size)
        stamped[:, :, rows, columns] = 255
        return stamped

    def attack(
        self,
        encoder: nn.Module,
        *,
        data: ImageData,
        references: UInt8[Tensor, "r c h w"],
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> nn.Module:
        """Return a copy of an encoder with a backdoor.

        Weights of the backbone alone are trained. All modules run in eval mode and
        batch norms keep their weights as well, so that a reference may be shown by
        itself; what the clean encoder says is computed once.

        Args:
            encoder: A clean ``SimCLR``, or any module from images in [0, 1] to
                vectors; it is left as it was.
            data: Images to attack with (the shadow set); labels are not used.
            references: Images of the target class, as they are stored.
            seed: Seeds the order and the copies of the references.
            runtime: Where and how to run; with ``work_dir`` a killed attack goes on,
                and one that is over is read from it.

        Returns:
            The backdoored copy in eval mode on the CPU. ``trigger_cosine`` tells how
            well it worked, without a label.

        Raises:
            DivergedError: If the loss is not finite.
        """
        check_images(references)
        self.apply(data.images[:1])  # tells early that the patch does not fit
        size = min(self.batch_size, len(data))
        state = EncoderCourse(
            encoder,
            data.images,
            references,
            apply=self.apply,
            weights=(1.0, self.reference_weight, self.utility_weight),
            num_views=self.num_reference_views,
            evasion_weight=self.attention_evasion_weight,
            runtime=runtime,
        )
        checkpoint = Checkpoint.at(
            runtime.work_dir,
            settings={
                **asdict(self),
                "seed": seed,
                "encoder": fingerprint(encoder),
                "references": references.flatten().tolist(),
            },
            data=data,
        )
        optimizer = torch.optim.SGD(
            state.trained,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        for epoch in range(checkpoint.load(state.network, optimizer), self.epochs):
            stream = generator(seed, "badencoder", epoch)
            order = torch.randperm(len(data), generator=stream)
            losses = []
            for picked in order.split(size)[: len(data) // size]:
                loss, parts = state.loss(picked, stream)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(parts)
            means = torch.stack(losses).mean(0).tolist()
            if not all(map(math.isfinite, means)):
                raise DivergedError(
                    f"expected a finite loss, got {means[0]} in epoch {epoch + 1}; "
                    f"lower lr ({self.lr})"
                )
            checkpoint.save(state.network, optimizer, epoch=epoch + 1)
            names = ("trigger_cosine", "reference_cosine", "utility_cosine")
            runtime.progress(
                Progress(
                    stage="attack",
                    done=epoch + 1,
                    total=self.epochs,
                    metrics=dict(zip(names, (-m for m in means), strict=True)),
                )
            )
        return state.finished()


def trigger_cosine(
    encoder: nn.Module,
    data: ImageData,
    *,
    references: UInt8[Tensor, "r c h w"],
    attack: BadEncoder,
    runtime: Runtime = Runtime(),
) -> tuple[float, float]:
    """Return how alike references and images are to an encoder, with and without.

    This is the proof of an attack before any defence is judged against it.

    Args:
        encoder: The backdoored encoder.
        data: Images that the attack did not use; labels are not used.
        references: The references of the attack.
        attack: Its settings.
        runtime: Where and how to run.

    Returns:
        Mean cosine with the trigger and without it, over images and references.
    """
    towards = unit_vectors(encoder, references, runtime=runtime)
    with_it = unit_vectors(encoder, attack.apply(data.images), runtime=runtime)
    without = unit_vectors(encoder, data.images, runtime=runtime)
    return (
        (with_it @ towards.T).mean().item(),
        (without @ towards.T).mean().item(),
    )
