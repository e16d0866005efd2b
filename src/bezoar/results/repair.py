"""A model without its backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bezoar.results.detection import Detection
from bezoar.results.provenance import Provenance
from bezoar.shapes import Bool

RepairStatus = Literal["repaired", "nothing found", "stopped"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Repair:
    """A model that was made to forget, and how that went.

    Attributes:
        model: A repaired copy; with "nothing found" the model given, unchanged.
        status: "repaired", "nothing found" (there was nothing to forget), or "stopped"
            (short of its aim, or it would have cost more than it may; the model is
            the best seen).
        summary: One or two sentences for a reader who is not a researcher.
        stop_reason: Why the last round was the last.
        history: One row of numbers per epoch or round, the state before it first.
        image_ids: Names of sets the method worked on (such as "suspicious",
            "trusted") and the images in them.
        provenance: How the model came about.
        health: Warnings, worst first; empty when all is well.
        kept: Row of the history that tells of ``model``.
        detection: What the method itself found in the data, where it looks for
            poison before it repairs.
        figures: Single numbers that the method tells, by name.
        tables: Small tables that it tells, by name; rows of plain values.
        seconds: What each of its stages took.
    """

    model: nn.Module
    status: RepairStatus
    summary: str
    stop_reason: str
    history: Sequence[Mapping[str, float]]
    provenance: Provenance
    image_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    kept: int = -1
    detection: Detection | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, tuple[Mapping[str, object], ...]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def before(self) -> Mapping[str, float]:
        """The row of the history that tells of the model given."""
        return self.history[0]

    @property
    def after(self) -> Mapping[str, float]:
        """The row of the history that tells of the model returned."""
        return self.history[self.kept]

    def chosen(self, name: str, ids: Sequence[str]) -> Bool[Tensor, " n"]:
        """Return which images a set holds, to measure it where the truth is known.

        Args:
            name: A set of ``image_ids``, such as "suspicious"; one that the method
                does not have is empty.
            ids: All images, in the order wanted.

        Returns:
            True for the images in the set; such as for ``metrics.purity``.
        """
        own = frozenset(self.image_ids.get(name, ()))
        return torch.tensor([i in own for i in ids], dtype=torch.bool)

    @property
    def changed(self) -> bool:
        """Whether the model differs from the one given.

        It does not where there was nothing to forget, nor where no state that came
        after was better than the one given.
        """
        return self.status != "nothing found" and self.kept != 0
