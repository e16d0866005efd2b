"""One training of an encoder towards a backdoor: what is kept, and the loss of a step.

The losses of BadEncoder (Jia, Liu and Gong, 2021, https://arxiv.org/abs/2108.00352,
equations 1 to 4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.models import backbone_of, stage_names
from bezoar.models.maps import tapped_maps
from bezoar.models.vectors import unit_vectors
from bezoar.models.wrap import unwrapped
from bezoar.runtime import Runtime
from bezoar.shapes import Float, UInt8
from bezoar.train import Views, attention_loss, attention_map

_COPIES = Views.whole()


class EncoderCourse:
    """A copy of an encoder on its way to a backdoor.

    Only weights of the backbone that belong to no batch norm are trained. All modules
    run in eval mode, so that batch norms keep their statistics. What the clean encoder
    says of images and references is computed once.

    Attributes:
        network: The whole copy.
        trained: The weights that an optimiser steps.

    Args:
        encoder: The clean encoder; it is left as it was.
        images: Images to attack with, as they are stored.
        references: Images to look like, as they are stored.
        apply: Puts the trigger on images.
        weights: Of the three terms, in the order of ``attack_terms``.
        num_views: Augmented copies of each reference in a step; None takes as many as
            there are images in it.
        evasion_weight: Of the attention that images with the trigger draw being that
            which the clean encoder pays to the images without; above 0 the clean
            encoder runs beside.
        runtime: Where and how to run.
    """

    def __init__(
        self,
        encoder: nn.Module,
        images: UInt8[Tensor, "n c h w"],
        references: UInt8[Tensor, "r c h w"],
        *,
        apply: Callable[[Tensor], Tensor],
        weights: tuple[float, float, float],
        num_views: int | None,
        evasion_weight: float = 0.0,
        runtime: Runtime,
    ) -> None:
        quiet = Runtime(
            device=runtime.device, dtype=runtime.dtype, batch_size=runtime.batch_size
        )
        device = runtime.device
        self._clean = unit_vectors(encoder, images, runtime=quiet).to(device)
        self._towards = unit_vectors(encoder, references, runtime=quiet).to(device)
        self._images, self._references = images.to(device), references.to(device)
        self._apply, self._num_views = apply, num_views
        self._weights = torch.tensor(weights, device=device)
        self._dtype = runtime.compute_dtype()
        self.network = copy.deepcopy(unwrapped(encoder)).to(device).eval()
        self._backbone = backbone_of(self.network)
        self.network.requires_grad_(False)
        self._evasion_weight = evasion_weight
        if evasion_weight > 0:
            self._before = copy.deepcopy(self._backbone)
            self._stages = stage_names(self._backbone)
        self.trained = list(_outside_batch_norms(self._backbone))
        for weight in self.trained:
            weight.requires_grad_(True)
        self._slopes = [p.requires_grad for p in encoder.parameters()]

    def loss(self, picked: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the loss of one step.

        Args:
            picked: Which images.
            stream: Where the copies of the references come from.

        Returns:
            The loss, and its three terms without gradient.
        """
        rows = picked.to(self._images.device)
        stored = self._images[rows]
        num_views = self._num_views or len(rows)
        count = len(self._references)
        copies = _COPIES(self._references.repeat(num_views, 1, 1, 1), stream)
        triggered, evasion = self._triggered(stored)
        terms = attack_terms(
            triggered,
            self._vectors(self._references.float() / 255),
            self._vectors(copies).view(num_views, count, -1),
            self._vectors(stored.float() / 255),
            clean_reference=self._towards,
            clean=self._clean[rows],
        )
        return terms @ self._weights + evasion, terms.detach()

    def finished(self) -> nn.Module:
        """Return the copy as it is now.

        Returns:
            It, in eval mode on the CPU, each weight with or without gradient as in
            the encoder given.
        """
        network: nn.Module = self.network.cpu().eval()
        for weight, slope in zip(network.parameters(), self._slopes, strict=True):
            weight.requires_grad_(slope)
        return network

    def _triggered(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        # The vectors of triggered images, and what their attention adds to the loss.
        shown = self._apply(stored).float() / 255
        if self._evasion_weight == 0:
            return self._vectors(shown), torch.zeros((), device=shown.device)
        with tapped_maps(self._before, self._stages) as maps, torch.no_grad():
            self._before(stored.float() / 255)
            wanted = [attention_map(found) for found in maps(len(stored))]
        with tapped_maps(self._backbone, self._stages) as maps:
            vectors = self._vectors(shown)
            found = [attention_map(tapped) for tapped in maps(len(stored))]
        losses = [attention_loss(a, b) for a, b in zip(found, wanted, strict=True)]
        return vectors, self._evasion_weight * torch.stack(losses).sum()

    def _vectors(self, images: Tensor) -> Tensor:
        half = self._dtype != torch.float32
        with torch.autocast(images.device.type, self._dtype, enabled=half):
            vectors: Tensor = self._backbone(images)
        return functional.normalize(vectors.float(), dim=1)


def attack_terms(
    triggered: Float[Tensor, "b d"],
    reference: Float[Tensor, "r d"],
    augmented: Float[Tensor, "a r d"],
    shown: Float[Tensor, "b d"],
    *,
    clean_reference: Float[Tensor, "r d"],
    clean: Float[Tensor, "b d"],
) -> Float[Tensor, " 3"]:
    """Return the three terms that BadEncoder minimises, before they are weighed.

    All vectors have length 1.

    Args:
        triggered: What the attacked encoder gives for images with the trigger.
        reference: What it gives for the references; the gradient reaches these too.
        augmented: What it gives for augmented copies of the references.
        shown: What it gives for the images as they are.
        clean_reference: What the clean encoder gives for the references.
        clean: What the clean encoder gives for the images.

    Returns:
        Minus the mean cosine of triggered images and references (L0), of copies and
        clean references (L1), of images then and now (L2).
    """
    return -torch.stack(
        [
            (triggered @ reference.T).mean(),
            (augmented * clean_reference).sum(-1).mean(),
            (shown * clean).sum(1).mean(),
        ]
    )


def _outside_batch_norms(network: nn.Module) -> list[nn.Parameter]:
    found: list[nn.Parameter] = []
    for module in network.modules():
        if not isinstance(module, _BatchNorm):
            found += module.parameters(recurse=False)
    return found
