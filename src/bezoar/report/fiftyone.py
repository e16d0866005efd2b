"""A detection in FiftyOne's JSON: ``fiftyone.Dataset.from_json`` reads it.

The shape is that of ``SampleCollection.to_dict``: a name, the fields of a sample, and
the samples. File names are those below the folder of the set, which ``rel_dir`` names.
"""

from __future__ import annotations

import math
import os
from typing import Any

from bezoar.results import Detection

_FIELDS = "fiftyone.core.fields"
_CLASSIFICATION = (
    f"{_FIELDS}.EmbeddedDocumentField(fiftyone.core.labels.Classification)"
)
_KINDS = {
    "bezoar_id": f"{_FIELDS}.StringField",
    "bezoar_score": f"{_FIELDS}.FloatField",
    "bezoar_rank": f"{_FIELDS}.IntField",
    "bezoar_p_value": f"{_FIELDS}.FloatField",
    "bezoar_flagged": f"{_FIELDS}.BooleanField",
    "bezoar_reason": f"{_FIELDS}.StringField",
}


def fiftyone(
    found: Detection, *, root: str = "", name: str = "bezoar"
) -> dict[str, Any]:
    """Return a detection as a FiftyOne data set.

    Args:
        found: The detection.
        root: Folder of the images; without one, give it as ``rel_dir``.
        name: What the data set is to be called.

    Returns:
        Plain values to be written as JSON; flagged images bear the tag "poison".

    """
    fields = dict(_KINDS)
    if found.class_names:
        fields["ground_truth"] = _CLASSIFICATION
    return {
        "name": name,
        "media_type": "image",
        "num_samples": len(found.ids),
        "sample_fields": fields,
        "info": {
            "bezoar": {
                "method": found.provenance.method,
                "status": found.verdict.status,
                "summary": found.verdict.summary,
                "seed": found.provenance.seed,
            }
        },
        "default_classes": list(found.class_names),
        "samples": [_sample(found, i, row, root) for i, row in enumerate(_rows(found))],
    }


def _rows(found: Detection) -> list[tuple[Any, ...]]:
    n = len(found.ids)
    p_values = [math.nan] * n if found.p_values is None else found.p_values.tolist()
    columns = (found.scores.tolist(), found.ranks.tolist(), p_values)
    return list(zip(*columns, found.flagged.tolist(), strict=True))


def _sample(
    found: Detection, i: int, row: tuple[Any, ...], root: str
) -> dict[str, Any]:
    score, rank, p_value, flagged = row
    sample: dict[str, Any] = {
        "filepath": os.path.join(root, found.ids[i]),
        "tags": ["poison"] if flagged else [],
        "metadata": None,
        "_media_type": "image",
        "bezoar_id": found.ids[i],
        "bezoar_score": score if math.isfinite(score) else None,
        "bezoar_rank": rank,
        "bezoar_p_value": p_value if math.isfinite(p_value) else None,
        "bezoar_flagged": flagged,
        "bezoar_reason": found.reasons[i] or None,
    }
    label = int(found.labels[i])
    if 0 <= label < len(found.class_names):
        sample["ground_truth"] = {
            "_cls": "Classification",
            "tags": [],
            "label": found.class_names[label],
        }
    return sample
