"""Scores of suspicion, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.results.provenance import Provenance
from bezoar.shapes import Bool, Float, Int64, UInt8

_PART = 1 << 16  # ranks at a time

Status = Literal["found", "look", "nothing found", "not scoreable", "ranking"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The raw columns of a per-image method, before any verdict.

    Attributes:
        ids: The images.
        labels: Their labels, -1 where there are none.
        columns: One number per image and name, in the method's own direction.
    """

    ids: tuple[str, ...]
    labels: Int64[Tensor, " n"]
    columns: Mapping[str, Float[Tensor, " n"]]

    @staticmethod
    def join(parts: Sequence[Scores]) -> Scores:
        """Return the scores of several blocks as one table.

        Args:
            parts: At least one table; all have the same columns.

        Returns:
            The rows of all, in order.
        """
        return Scores(
            ids=tuple(i for p in parts for i in p.ids),
            labels=torch.cat([p.labels for p in parts]),
            columns={
                name: torch.cat([p.columns[name] for p in parts])
                for name in parts[0].columns
            },
        )


@dataclass(frozen=True, kw_only=True)
class ClassEvidence:
    """What the scores say of one class.

    Attributes:
        label: The class index.
        num_images: Images of the class.
        median: Median of the raw column that the verdict was made from.
        excess: Share of the class beyond what the other classes lead to expect.
        z: The excess in robust standard deviations over the classes.
        num_flagged: Images flagged in it.
        status: What is said of the class: "found", "look" or "nothing found".
        transplant_rate: Share of other images that the model takes for this class
            once the little that it needs of the class's most suspicious images is
            pasted on them; None where that was not tried.
        control_rate: The same for the least suspicious images of the class.
    """

    label: int
    num_images: int
    median: float
    excess: float
    z: float
    num_flagged: int
    status: Status = "nothing found"
    transplant_rate: float | None = None
    control_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a detection comes to, in numbers and in words.

    Attributes:
        status: "found", "look" (weak signs, nothing flagged), "nothing found",
            "not scoreable", or "ranking" (no rule applied).
        rule: The threshold rule that was used.
        summary: One or two sentences for a reader who is not a researcher.
        num_flagged: Images flagged.
        expected_false_alarms: How many of those are expected to be innocent.
        poison_rate: Estimated share of poison among all images; None if unknown.
        poison_rate_interval: 90 % interval of the estimate.
        target_class: The class that the poison seems to lead to.
        classes: Evidence by class, where the rule looks at classes.
        health: Remarks on the scores themselves, worst first; empty when healthy.
        threshold: Raw value at or below which an image is flagged, for rules that
            have one threshold.
    """

    status: Status
    rule: str
    summary: str
    num_flagged: int
    expected_false_alarms: float
    poison_rate: float | None = None
    poison_rate_interval: tuple[float, float] | None = None
    target_class: int | None = None
    classes: tuple[ClassEvidence, ...] = ()
    health: tuple[str, ...] = ()
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """Scores of suspicion, one per image, and what they come to.

    Attributes:
        ids: The images, in the order given.
        labels: Their labels; -1 where there are none.
        class_names: Names by class index; empty where there are no labels.
        scores: Higher is more suspicious; comparable only under equal settings.
        p_values: Chance of a score at least as suspicious for an innocent image;
            None where the rule gives none.
        flagged: True for the images that the verdict accuses.
        reasons: Why, one sentence for each flagged image; empty for the others.
        columns: Raw columns of the method, in its own direction.
        verdict: What the scores come to.
        masks: Masks of the images ``mask_ids``, 255 keeps a pixel; None unless
            asked for.
        mask_ids: The images that ``masks`` belong to.
        provenance: How the scores came about.
    """

    ids: tuple[str, ...]
    labels: Int64[Tensor, " n"]
    class_names: tuple[str, ...]
    scores: Float[Tensor, " n"]
    p_values: Float[Tensor, " n"] | None
    flagged: Bool[Tensor, " n"]
    reasons: tuple[str, ...]
    columns: Mapping[str, Float[Tensor, " n"]]
    verdict: Verdict
    provenance: Provenance
    masks: UInt8[Tensor, "m h w"] | None = None
    mask_ids: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the verdict says that there is poison."""
        return self.verdict.status == "found"

    @property
    def ranks(self) -> Int64[Tensor, " n"]:
        """Place of each image by suspicion, 1 for the most suspicious."""
        ranks = torch.empty(len(self.ids), dtype=torch.int64)
        order = self.scores.argsort(descending=True, stable=True)
        first = 1
        for part in order.split(_PART):  # a whole row of numbers would be one too many
            ranks[part] = torch.arange(first, first + len(part))
            first += len(part)
        return ranks

    def keep(self, data: ImageData) -> ImageData:
        """Return the images that are not flagged.

        Args:
            data: The images that were scored.

        Returns:
            The images kept; ``data`` itself when nothing was flagged.

        Raises:
            InputError: If the ids are not those that were scored.
        """
        if data.ids != self.ids:
            raise InputError(
                f"expected the {len(self.ids)} images that were scored, got "
                f"{len(data)} images with other ids; give the same set"
            )
        return data.subset(~self.flagged) if self.flagged.any() else data

    def with_masks(
        self, masks: UInt8[Tensor, "m h w"], ids: tuple[str, ...]
    ) -> Detection:
        """Return the same detection with masks.

        Args:
            masks: One mask per id; 255 keeps a pixel.
            ids: The images that the masks belong to.

        Returns:
            A new detection.
        """
        return replace(self, masks=masks, mask_ids=ids)
