"""Poisoned pairs of images and captions, with the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from bezoar.data import PairData
from bezoar.results.provenance import Provenance
from bezoar.shapes import Bool, UInt8


@runtime_checkable
class PairTrigger(Protocol):
    """What an attack shows at test time; it travels with the pairs that it poisoned."""

    @property
    def poison_rate(self) -> float:
        """Poisoned pairs divided by all pairs given."""

    @property
    def target_class(self) -> int:
        """The class that the trigger leads to."""

    def apply(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Return the images with the trigger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PoisonedPairs:
    """Poisoned pairs, and the truth about them that a drill is judged by.

    Attributes:
        data: The pairs as a victim would get them; ids are those of the original.
        is_poison: True for the pairs that carry the poison.
        original_captions: Captions before the attack.
        target_class: The class that the trigger leads to.
        trigger: What is shown at test time, the very one that was planted.
        prefix: Words put before every prompt at test time; empty for most attacks.
        provenance: The attack and its settings.
    """

    data: PairData
    is_poison: Bool[Tensor, " n"]
    original_captions: tuple[str, ...]
    target_class: int
    trigger: PairTrigger
    prefix: str = ""
    provenance: Provenance

    @property
    def poison_rate(self) -> float:
        """Poisoned pairs divided by all pairs given."""
        return self.is_poison.float().mean().item()

    @property
    def poison_indices(self) -> tuple[int, ...]:
        """Positions of the poisoned pairs."""
        return tuple(self.is_poison.nonzero().flatten().tolist())
