"""A look at a whole set before hours are spent: does it look made unlearnable?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bezoar.results.provenance import Provenance

ScreeningStatus = Literal["found", "nothing found", "undecided", "not scoreable"]


@dataclass(frozen=True, kw_only=True)
class Screening:
    """How much of what tells the classes goes away when faint detail is taken out.

    Attributes:
        status: "found" (something faint goes with the classes), "nothing found",
            "undecided" (the classes are told so well without the detail that nothing
            more can be said), or "not scoreable" (too few labelled images).
        summary: One or two sentences for a reader who is not a researcher.
        given: Accuracy on held-out images as they were given, by probe: "network",
            "pixels" and "texture" (linear rules on the fine detail).
        treated: The same for probes that learnt from treated images, on treated ones.
        alarms: The difference from which on a probe is an alarm; empty where no
            verdict was asked for.
        num_images: Images that were looked at.
        health: Limits of what was looked at, worst first.
        provenance: How the figures came about.
    """

    status: ScreeningStatus
    summary: str
    given: Mapping[str, float]
    treated: Mapping[str, float]
    alarms: Mapping[str, float]
    num_images: int
    provenance: Provenance
    health: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether something faint goes with the classes."""
        return self.status == "found"

    @property
    def gaps(self) -> Mapping[str, float]:
        """What each probe loses to the treatment."""
        return {name: value - self.treated[name] for name, value in self.given.items()}
