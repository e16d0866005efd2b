"""Estimates of information that a killed run left, so that it goes on the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from bezoar.data import ImageData
from bezoar.models import fingerprint
from bezoar.repair.information import Estimation, Information, estimate_information
from bezoar.runtime import Runtime
from bezoar.storage import read_object, write_json


def remembered_information(
    encoder: nn.Module,
    data: ImageData,
    *,
    layers: Sequence[str],
    settings: Estimation,
    held_out: ImageData | None,
    seed: int,
    runtime: Runtime,
) -> Information:
    """Estimate information as ``estimate_information``, or read what a run left.

    Args:
        encoder: Maps images in [0, 1] to vectors.
        data: Images.
        layers: Modules to look at.
        settings: The protocol.
        held_out: Images that the critics do not learn from.
        seed: Seeds the critics and the pairs.
        runtime: Where and how to run; the result is kept in its ``work_dir``.

    Returns:
        The estimates: on a GPU two runs differ in the last digits, and a run that goes
        on must go on with the same weights.
    """
    told: dict[str, Any] = {
        **asdict(settings),
        "seed": seed,
        "layers": tuple(layers),
        "encoder": fingerprint(encoder),
        "images": hashlib.blake2b(data.images.numpy().tobytes()).hexdigest(),
    }
    key = hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
    path = None if runtime.work_dir is None else runtime.work_dir / "information.json"
    if path is not None and path.exists():
        kept: dict[str, Any] = dict(read_object(path))
        if kept.get("key") == key:
            return Information(values=kept["values"], curve=tuple(kept["curve"]))
    found = estimate_information(
        encoder,
        data,
        layers=layers,
        settings=settings,
        held_out=held_out,
        seed=seed,
        runtime=runtime,
    )
    if path is not None:
        write_json(path, {"key": key, **asdict(found)})
    return found
