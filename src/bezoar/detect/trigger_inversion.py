"""The search for the smallest patch that makes images look alike to an encoder.

All restarts run side by side in one batch; none depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import DivergedError, ModelError
from bezoar.shapes import Bool, Float

_BETAS = (0.5, 0.9)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a patch is searched for.

    Attributes:
        steps: Steps of Adam.
        lr: Step size; a fifth of it from 60 % of the steps on.
        cosine_target: Mean cosine between patched images to be reached.
        area_weight: Weight of the mask's sum at the start.
        area_factor: What that weight is multiplied or divided by.
        patience: Steps in a row above or below the target before it is.
        batch_size: Images per step and restart.
        num_restarts: Patches to start from.
    """

    steps: int
    lr: float
    cosine_target: float
    area_weight: float
    area_factor: float
    patience: int
    batch_size: int
    num_restarts: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """The smallest patch of each restart.

    Attributes:
        masks: From 0 to 1.
        patterns: In [0, 1].
        areas: Mean of each mask; 1 where the target was never reached.
    """

    masks: Float[Tensor, "r h w"]
    patterns: Float[Tensor, "r c h w"]
    areas: Float[Tensor, " r"]


def pairwise_cosine(vectors: Float[Tensor, "r b d"]) -> Float[Tensor, " r"]:
    """Return the mean cosine between different vectors of each set.

    Args:
        vectors: At least two in each set.

    Returns:
        ``(|sum of unit vectors|^2 - b) / (b (b - 1))``.

    Example:
        >>> pairwise_cosine(torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]]))
        tensor([0.3333])
    """
    unit = functional.normalize(vectors, dim=2)
    count = unit.shape[1]
    return (unit.sum(1).square().sum(1) - count) / (count * (count - 1))


def stamped(
    images: Float[Tensor, "b c h w"],
    masks: Float[Tensor, "r h w"],
    patterns: Float[Tensor, "r c h w"],
) -> Float[Tensor, "n c h w"]:
    """Return all images under each patch: ``(1 - m) x + m q``.

    Args:
        images: In [0, 1].
        masks: How opaque each patch is.
        patterns: Its colours.

    Returns:
        r times b images, those of the first patch first.
    """
    opaque = masks[:, None, None]
    shown = images[None] * (1 - opaque) + opaque * patterns[:, None]
    return shown.flatten(0, 1)


def smallest_patches(
    encoder: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    *,
    search: Search,
    stream: torch.Generator,
    told: Callable[[int, float], None],
    starts: tuple[Float[Tensor, "s h w"], Float[Tensor, "s c h w"]] | None = None,
) -> Patches:
    """Search for the smallest patch, from several starts.

    Args:
        encoder: From images in [0, 1] to vectors, without weight gradients.
        images: On the encoder's device.
        search: How.
        stream: Where starts and batches come from.
        told: Called after each step with the steps done and the best area.
        starts: Raw masks and patterns that the first restarts begin with.

    Returns:
        The patches, on the CPU.

    Raises:
        DivergedError: If the loss is not finite.
    """
    restarts, device = search.num_restarts, images.device
    _, channels, height, width = images.shape
    raw_mask = torch.randn(restarts, height, width, generator=stream) * 0.1
    raw_pattern = torch.randn(restarts, channels, height, width, generator=stream)
    raw = [raw_mask.to(device), raw_pattern.to(device)]
    for drawn, given in zip(raw, starts or (), strict=starts is not None):
        drawn[: len(given)] = given
    for drawn in raw:
        drawn.requires_grad_()
    optimizer = torch.optim.Adam(raw, lr=search.lr, betas=_BETAS)
    weights = AreaWeights(search, device=device)
    kept: list[Tensor] = [opaque(raw[0]).detach(), opaque(raw[1]).detach()]
    best = torch.ones(restarts, device=device)
    size = min(search.batch_size, len(images))
    for step in range(search.steps):
        if step == round(0.6 * search.steps):
            optimizer.param_groups[0]["lr"] = search.lr / 5
        picked = torch.randperm(len(images), generator=stream)[:size].to(device)
        masks, patterns = opaque(raw[0]), opaque(raw[1])
        vectors = encoder(stamped(images[picked], masks, patterns))
        cosines = pairwise_cosine(vectors.float().unflatten(0, (restarts, size)))
        loss = (weights.values * masks.sum((1, 2)) - cosines).sum()
        if not loss.isfinite():
            raise DivergedError(
                f"expected a finite loss, got {loss.item()} in step {step + 1} of the "
                "search; check the encoder's weights"
            )
        areas, reached = (
            masks.detach().mean((1, 2)),
            cosines.detach() > (search.cosine_target),
        )
        better = reached & (areas < best)
        best = torch.where(better, areas, best)
        for place, now in enumerate((masks.detach(), patterns.detach())):
            chosen = better.view(-1, *[1] * (now.ndim - 1))
            kept[place] = torch.where(chosen, now, kept[place])
        raw[0].grad, raw[1].grad = torch.autograd.grad(loss, raw)
        optimizer.step()
        weights.update(reached)
        told(step + 1, best.min().item())
    return Patches(masks=kept[0].cpu(), patterns=kept[1].cpu(), areas=best.cpu())


class AreaWeights:
    """The weight of the area in each restart: up above the target, down below it.

    Args:
        search: Its start, factor and patience.
        device: Where it is kept.

    Attributes:
        values: One weight for each restart.
    """

    def __init__(self, search: Search, *, device: torch.device) -> None:
        self._search = search
        restarts = search.num_restarts
        self.values = torch.full((restarts,), search.area_weight, device=device)
        self._above = torch.zeros(restarts, dtype=torch.int64, device=device)
        self._below = torch.zeros(restarts, dtype=torch.int64, device=device)

    def update(self, reached: Bool[Tensor, " r"]) -> None:
        """Count a step.

        Args:
            reached: Which restarts are above the target.
        """
        factor, patience = self._search.area_factor, self._search.patience
        self._above = torch.where(reached, self._above + 1, 0)
        self._below = torch.where(reached, 0, self._below + 1)
        more, less = self._above >= patience, self._below >= patience
        self.values = torch.where(more, self.values * factor, self.values)
        self.values = torch.where(less, self.values / factor, self.values)
        self._above = torch.where(more, 0, self._above)
        self._below = torch.where(less, 0, self._below)


def opaque(raw: Tensor) -> Tensor:
    """Return values from 0 to 1, as DECREE bounds mask and pattern.

    Args:
        raw: Any values.

    Returns:
        ``(tanh(raw) + 1) / 2``.
    """
    return (raw.tanh() + 1) / 2


@torch.no_grad()
def cosines_of(
    encoder: nn.Module, images: Float[Tensor, "n c h w"], patches: Patches
) -> Float[Tensor, " r"]:
    """Return the mean cosine between all images under each patch.

    Args:
        encoder: From images in [0, 1] to vectors.
        images: On the encoder's device.
        patches: The patches.

    Returns:
        One value for each patch, on the CPU.

    Raises:
        ModelError: If the encoder gives something else than a vector for each image.
    """
    found = []
    for mask, pattern in zip(patches.masks, patches.patterns, strict=True):
        rows = []
        for part in images.split(64):
            place = part.device
            shown = stamped(part, mask[None].to(place), pattern[None].to(place))
            vectors = encoder(shown)
            if not isinstance(vectors, Tensor) or vectors.ndim != 2:
                shape = tuple(getattr(vectors, "shape", ()))
                raise ModelError(
                    "expected an encoder that gives a vector for each image, got "
                    f"{type(vectors).__name__} {shape}; take off its head, or wrap it"
                )
            rows.append(vectors.float())
        found.append(pairwise_cosine(torch.cat(rows)[None]))
    return torch.cat(found).cpu()
