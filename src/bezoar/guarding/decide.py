"""What becomes of each image, by a rule that is stated and can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bezoar.data import Unreadable
from bezoar.guarding.settings import Guard
from bezoar.guarding.verify import Verified
from bezoar.report import Decision
from bezoar.results import Detection, Screening
from bezoar.storage import write_table

Action = Literal["drop", "purify", "keep"]

FILE = "actions.parquet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of the images.

    Attributes:
        actions: "drop", "purify" or a person's "keep", with the reason, by id; images
            that are not named are kept as they are.
        purify_all: Whether images that are not named are purified.
        why_all: The reason for that.
    """

    actions: Mapping[str, tuple[Action, str]]
    purify_all: bool = False
    why_all: str = ""

    @property
    def changes(self) -> bool:
        """Whether anything is dropped or purified."""
        return self.purify_all or any(a != "keep" for a, _ in self.actions.values())

    @property
    def purifies(self) -> bool:
        """Whether anything is purified."""
        return self.purify_all or "purify" in {a for a, _ in self.actions.values()}

    @property
    def dropped(self) -> frozenset[str]:
        """The images that are dropped."""
        return frozenset(i for i, (a, _) in self.actions.items() if a == "drop")

    def keeps(self, id_: str) -> bool:
        """Return whether an image is in the clean set.

        Args:
            id_: Its id.

        Returns:
            False if it is dropped.
        """
        return self.actions.get(id_, ("keep", ""))[0] != "drop"

    def is_purified(self, id_: str) -> bool:
        """Return whether an image is purified.

        Args:
            id_: Its id.

        Returns:
            True if its pixels change.
        """
        default = "purify" if self.purify_all else "keep"
        return self.actions.get(id_, (default, ""))[0] == "purify"

    @property
    def summary(self) -> str:
        """What is decided, in a few words."""
        if not self.changes:
            return "nothing is dropped and nothing purified: the set is kept as it is"
        counts = [f"{len(self.dropped):,} dropped"] * bool(self.dropped)
        if self.purify_all:
            counts.append("all others purified")
        else:
            some = sum(a == "purify" for a, _ in self.actions.values())
            counts += [f"{some:,} purified"] * (some > 0)
        return ", ".join(counts)


def decide(
    rule: Guard,
    *,
    verified: Verified | None = None,
    screening: Screening | None = None,
    found: Detection | None = None,
    unreadable: tuple[Unreadable, ...] = (),
    decisions: Mapping[str, Decision] | None = None,
) -> Plan:
    """Say what becomes of each image.

    Args:
        rule: The rule.
        verified: What reading every file came to.
        screening: What the look at the whole set came to.
        found: What the detection found.
        unreadable: Files that are no images.
        decisions: What a person decided, by id; it has precedence.

    Returns:
        What becomes of them, with the reasons.

    Example:
        >>> plan = decide(Guard(), decisions={"a.png": "drop"})
        >>> plan.keeps("a.png"), plan.keeps("b.png")
        (False, True)
    """
    wishes: list[tuple[str, Action, str]] = []
    wishes += [(u.id, rule.unreadable, u.reason) for u in unreadable]
    if verified is not None:
        wishes += [
            (i, rule.exact_duplicates, f"the same file as {group[0]}")
            for group in verified.exact
            for i in group[1:]
        ]
        wishes += [
            (i, rule.near_duplicates, f"shows the same as {group[0]}")
            for group in verified.near
            for i in group[1:]
        ]
    if found is not None:
        wishes += [
            (found.ids[i], rule.flagged, found.reasons[i] or "it was flagged")
            for i in found.flagged.nonzero().flatten().tolist()
        ]
    actions: dict[str, tuple[Action, str]] = {}
    for strength in ("drop", "purify"):
        for id_, action, reason in wishes:
            if action == strength:
                actions.setdefault(id_, (action, reason))
    for id_, choice in (decisions or {}).items():
        actions[id_] = (choice, "decided by a person")
    protected = screening is not None and screening.found
    return Plan(
        actions=actions,
        purify_all=protected and rule.protected == "purify",
        why_all=screening.summary if screening is not None and protected else "",
    )


def save_plan(plan: Plan, folder: Path) -> None:
    """Write what becomes of the images, those that are not kept as they are.

    Args:
        plan: What was decided.
        folder: Where to.
    """
    rows = sorted((i, action, why) for i, (action, why) in plan.actions.items())
    write_table(
        folder / FILE,
        {
            "id": [row[0] for row in rows],
            "action": [row[1] for row in rows],
            "reason": [row[2] for row in rows],
        },
        metadata={"others": "purify" if plan.purify_all else "keep"},
    )
