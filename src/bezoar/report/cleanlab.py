"""A detection as the columns that cleanlab's ``Datalab.get_issues`` has for an issue.

There a score lies between 0 and 1 and is **low** for a severe issue, against the rest
of bezoar; ``is_poison_issue`` says whether the image is flagged.
"""

from __future__ import annotations

from bezoar.results import Detection
from bezoar.storage import Column


def cleanlab(found: Detection) -> dict[str, Column]:
    """Return a detection as issue columns, one row per image in the order given.

    Args:
        found: The detection.

    Returns:
        "id", "is_poison_issue", "poison_score" (the rank as a share of the set: 0 is
        the most suspicious), and with labels "given_label" and, where the model told
        it, "predicted_label".

    """
    n = len(found.ids)
    columns: dict[str, Column] = {
        "id": found.ids,
        "is_poison_issue": found.flagged,
        "poison_score": (found.ranks.double() - 1) / max(n - 1, 1),
    }
    if found.class_names:
        columns["given_label"] = [_name(found, i) for i in found.labels.tolist()]
    predicted = found.columns.get("predicted")
    if predicted is not None and found.class_names:
        columns["predicted_label"] = [
            _name(found, i) for i in predicted.long().tolist()
        ]
    return columns


def _name(found: Detection, label: int) -> str | None:
    return found.class_names[label] if 0 <= label < len(found.class_names) else None
