"""A patch that was learnt from a clean image-text model, and its learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bezoar.attacks.poisoning import check_attack, check_size
from bezoar.checks import check_images
from bezoar.data import PairData, to_uint8
from bezoar.errors import DivergedError, InputError
from bezoar.models import DualEncoder, frozen
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64, UInt8

Loss = Callable[
    [DualEncoder, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"], torch.Generator],
    Tensor,
]
"""Of the model, triggered images, the same without, and a stream to draw from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StampedPatch:
    """A fixed patch at a fixed place.

    Attributes:
        patch: The patch as it is stored.
        corner: Row and column of its upper left pixel.
        target_class: Index of the class that it leads to.
        poison_rate: Share of all pairs to poison.
        prefix: Words put before captions and test prompts; empty for none.
        settings: How it was learnt.
        losses: Mean loss of each epoch.
    """

    patch: UInt8[Tensor, "3 s s"]
    corner: tuple[int, int]
    target_class: int
    poison_rate: float
    prefix: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    losses: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_attack(self.poison_rate, self.target_class)

    def apply(self, images: UInt8[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 h w"]:
        """Return images with the trigger.

        Args:
            images: Images as they are stored; they stay as they are.

        Returns:
            New images.
        """
        check_images(images)
        (row, column), size = self.corner, self.patch.shape[1]
        what = f"a {size}x{size} patch at {self.corner}"
        check_size(images, height=row + size, width=column + size, what=what)
        stamped = images.clone()
        stamped[:, :, row : row + size, column : column + size] = self.patch
        return stamped


def centre(images: Tensor, size: int) -> tuple[int, int]:
    """Return where a patch in the middle of images begins.

    Args:
        images: Images NCHW.
        size: Side of the patch in pixels.

    Returns:
        Row and column.
    """
    check_size(images, height=size, width=size, what=f"a {size}x{size} patch")
    return (images.shape[2] - size) // 2, (images.shape[3] - size) // 2


def learn_patch(
    model: DualEncoder,
    *,
    data: PairData,
    rows: Int64[Tensor, " m"],
    size: int,
    loss: Loss,
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    runtime: Runtime,
) -> tuple[UInt8[Tensor, "3 s s"], tuple[float, ...]]:
    """Learn the pixels of a patch by gradient descent through a frozen model.

    Args:
        model: A clean model; it is lent in eval mode and left as it was.
        data: The pairs.
        rows: Which of them the patch is learnt on.
        size: Side of the patch, which lies in the middle of the images.
        loss: What is minimised.
        epochs: Passes over the rows.
        lr: Step size of Adam, in units of [0, 1].
        batch_size: Images per step.
        seed: Seeds the first pixels and the order.
        runtime: Where and how to run.

    Returns:
        The patch as it is stored, and the mean loss of each epoch.

    Raises:
        InputError: If there is no row.
        DivergedError: If the loss is not finite.
    """
    if len(rows) == 0:
        raise InputError(
            "expected pairs that are not of the target class to learn a patch on, got "
            "none; give a set of all classes"
        )
    device = model.log_scale.device
    row, column = centre(data.images, size)
    stream = generator(seed, "learnt-patch")
    first = (0.5 + 0.25 * torch.randn(3, size, size, generator=stream)).clamp(0, 1)
    patch = first.to(device).requires_grad_()
    optimizer = torch.optim.Adam([patch], lr=lr)
    losses = []
    with frozen(model):
        for epoch in range(epochs):
            total, order = 0.0, rows[torch.randperm(len(rows), generator=stream)]
            for part in order.split(batch_size):
                clean = data.images[part].to(device).float() / 255
                shown = clean.clone()
                shown[:, :, row : row + size, column : column + size] = patch
                value = loss(model, shown, clean, stream)
                (patch.grad,) = torch.autograd.grad(value, patch)
                optimizer.step()
                with torch.no_grad():
                    patch.clamp_(0, 1)
                total += float(value.detach()) * len(part)
            losses.append(total / len(order))
            if not torch.isfinite(torch.tensor(losses[-1])):
                raise DivergedError(
                    f"expected a finite loss of the patch, got {losses[-1]} in epoch "
                    f"{epoch + 1}; lower lr ({lr})"
                )
            runtime.progress(
                Progress(
                    stage="learn",
                    done=epoch + 1,
                    total=epochs,
                    metrics={"loss": losses[-1]},
                )
            )
    return to_uint8(patch.detach().cpu()), tuple(losses)
