"""Whether an encoder seems to hold a backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bezoar.results.provenance import Provenance
from bezoar.shapes import Float

DiagnosisStatus = Literal["found", "nothing found", "not scoreable"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """What the search for a trigger says about an encoder.

    Attributes:
        status: "found" (a small patch makes all images look alike to the encoder),
            "nothing found", or "not scoreable" (they look alike without any patch).
        summary: One or two sentences for a reader who is not a researcher.
        score: Minus the logarithm of ``area``: higher is more suspicious.
        area: The smallest share of the image that a patch needs to make images look
            alike (P L1 norm in DECREE); 1 where none was found.
        threshold: The area below which a backdoor is reported.
        cosine: Mean cosine between images with the patch, of all images given.
        mask: How opaque the patch is at each place, from 0 to 1.
        pattern: Its colours, in [0, 1].
        restarts: Area and cosine of every start, by name.
        reference_areas: The same area for encoders known to be clean.
        p_value: Share of clean encoders, this one counted among them, with an area as
            small; None without reference encoders.
        limits: What this does not tell.
        provenance: How it came about.
    """

    status: DiagnosisStatus
    summary: str
    score: float
    area: float
    threshold: float
    cosine: float
    mask: Float[Tensor, "h w"]
    pattern: Float[Tensor, "c h w"]
    restarts: Sequence[Mapping[str, float]]
    provenance: Provenance
    reference_areas: tuple[float, ...] = ()
    p_value: float | None = None
    limits: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether a backdoor is reported."""
        return self.status == "found"
