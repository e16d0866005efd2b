"""The most suspicious images of a set, small enough for a page to hold them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.data import ImageData
from bezoar.report.pictures import Budget, mask_for, masked, picture
from bezoar.report.sections import Section
from bezoar.results import Detection
from bezoar.shapes import Float, Int64

Decision: TypeAlias = Literal["keep", "drop"]

MAX_FLAGGED = 4000
MAX_PICTURES = 1000
LEAST_OTHERS = 200  # unflagged images that are shown beside any number of flagged ones
NUM_NEIGHBOURS = 6
_TEXT_BYTES = 700_000  # of ids, reasons and captions as JSON holds them
_PICTURE_BYTES = 1_350_000
_DETAIL_BYTES = 450_000
_WITH_NEIGHBOURS = 120  # rows


class Chosen(NamedTuple):
    """Which images a gallery holds.

    Attributes:
        rows: Places in the detection: flagged images by rank, then the others by rank.
        pictured: Those of them that get a thumbnail.
    """

    rows: list[int]
    pictured: list[int]


def choose(found: Detection) -> Chosen:
    """Return which images a gallery of a detection holds.

    Args:
        found: The detection.

    Returns:
        Places in it; the pictures of ``pictured`` are what a caller has to read.
    """
    order = found.ranks.argsort()
    marks = found.flagged[order]
    flagged = order[marks][:MAX_FLAGGED].tolist()
    num_others = max(LEAST_OTHERS, MAX_PICTURES - len(flagged))
    others = order[~marks][:num_others].tolist()
    shown = flagged[: MAX_PICTURES - min(LEAST_OTHERS, len(others))]
    return Chosen(
        rows=flagged + others,
        pictured=shown + others[: MAX_PICTURES - len(shown)],
    )


def gallery(
    found: Detection,
    *,
    images: ImageData | None = None,
    vectors: Float[Tensor, "m d"] | None = None,
    captions: Mapping[str, str] | None = None,
    decisions: Mapping[str, Decision] | None = None,
    title: str = "Most suspicious images",
    text: str = "",
) -> Section:
    """Return the most suspicious images, with what there is to say of each.

    Args:
        found: The detection.
        images: The images ``choose(found).pictured``, or some of them; None shows no
            thumbnails.
        vectors: A feature vector for each of ``images``, to name neighbours by.
        captions: Texts that belong to the images, by id.
        decisions: What a person decided, by id.
        title: The heading.
        text: A sentence above.

    Returns:
        The section.
    """
    rows = _that_fit(found, choose(found).rows, captions)
    ids = [found.ids[i] for i in rows]
    place = {} if images is None else {id_: i for i, id_ in enumerate(images.ids)}
    p_values = found.p_values
    columns: dict[str, list[object]] = {
        "id": list(ids),
        "label": found.labels[rows].tolist(),
        "score": [_short(v) for v in found.scores[rows].tolist()],
        "rank": found.ranks[rows].tolist(),
        "p_value": [None] * len(rows)
        if p_values is None
        else [_short(v) for v in p_values[rows].tolist()],
        "flagged": found.flagged[rows].tolist(),
        "reason": [found.reasons[i] for i in rows],
    }
    if captions is not None:
        columns["caption"] = [captions.get(id_, "") for id_ in ids]
    told = decisions or {}
    return {
        "type": "gallery",
        "title": title,
        "text": text,
        "total": len(found.ids),
        "class_names": list(found.class_names),
        "columns": columns,
        "thumbnails": _thumbnails(ids, images, place),
        "details": _details(found, ids, images, place, vectors),
        "decisions": {id_: told[id_] for id_ in ids if id_ in told},
    }


def _short(value: float) -> float | None:
    rounded = float(f"{value:.5g}")
    return rounded if abs(rounded) < float("inf") else None  # NaN and inf: null


def _that_fit(
    found: Detection, rows: list[int], captions: Mapping[str, str] | None
) -> list[int]:
    # Names, reasons and captions are of any length: those that fit, the first first.
    left = _TEXT_BYTES
    for number, row in enumerate(rows):
        caption = (captions or {}).get(found.ids[row], "")
        texts = (found.ids[row], found.reasons[row], caption)
        left -= sum(len(json.dumps(text)) for text in texts)
        if left < 0:
            return rows[: max(number, 1)]
    return rows


def _thumbnails(
    ids: list[str], images: ImageData | None, place: Mapping[str, int]
) -> list[str | None]:
    if images is None:
        return []
    budget, found = Budget(_PICTURE_BYTES), list[str | None]()
    for id_ in ids:
        address = picture(images.images[place[id_]]) if id_ in place else None
        fits = address is not None and budget.takes(address)
        found.append(address if fits else None)
    while found and found[-1] is None:
        found.pop()
    return found


def _details(
    found: Detection,
    ids: list[str],
    images: ImageData | None,
    place: Mapping[str, int],
    vectors: Tensor | None,
) -> list[Section]:
    if images is None:
        return []
    masks = (
        {}
        if found.masks is None
        else dict(zip(found.mask_ids, found.masks, strict=True))
    )
    near = _neighbours(ids, place, vectors)
    budget, details = Budget(_DETAIL_BYTES), list[Section]()
    for row, id_ in enumerate(ids):
        if id_ not in place:
            continue
        detail: Section = {}
        if id_ in masks:
            detail |= _evidence(images.images[place[id_]], masks[id_], budget)
        if row in near:
            detail["neighbours"] = near[row]
        if detail:
            details.append({"row": row, **detail})
    return details


def _evidence(image: Tensor, mask: Tensor, budget: Budget) -> Section:
    parts = {
        "image": picture(image, exact=True),
        "mask": picture(mask_for(mask, image), exact=True),
        "pattern": picture(masked(image, mask), exact=True),
    }
    return parts if budget.takes("".join(parts.values())) else {}


def _neighbours(
    ids: list[str], place: Mapping[str, int], vectors: Tensor | None
) -> dict[int, list[int]]:
    shown = [row for row, id_ in enumerate(ids) if id_ in place]
    if vectors is None or len(shown) < 2:
        return {}
    rows: Int64[Tensor, " m"] = torch.tensor(shown)
    unit = functional.normalize(vectors[[place[ids[row]] for row in shown]].float())
    near = {}
    for number, row in enumerate(shown[:_WITH_NEIGHBOURS]):
        likeness = unit @ unit[number]
        likeness[number] = -torch.inf
        count = min(NUM_NEIGHBOURS, len(shown) - 1)
        near[row] = rows[likeness.topk(count).indices].tolist()
    return near
