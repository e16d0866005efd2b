"""A detection with hostile names, and the report of it."""

import pytest
import torch

from bezoar.data import ImageData
from bezoar.report import (
    Report,
    detection_sections,
    make_report,
    run_of,
    verdict_of,
)
from bezoar.results import ClassEvidence, Detection, Provenance, Verdict

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "cat/\u202egpj.exe",
    "</script><script>alert(2)</script>.png",
    "line\u2028break.png",
)


@pytest.fixture
def found() -> Detection:
    """Twelve images of two classes, three of them flagged."""
    n = 12
    flagged = torch.zeros(n, dtype=torch.bool)
    flagged[[1, 4, 7]] = True
    evidence = ClassEvidence(
        label=1, num_images=6, median=3.0, excess=0.5, z=8.0, num_flagged=3
    )
    return Detection(
        ids=(*HOSTILE, *(f"dog/{i}.png" for i in range(4, n))),
        labels=torch.arange(n) % 2,
        class_names=("cat", "<b>dog</b>"),
        scores=torch.linspace(0, 1, n) + 2 * flagged,
        p_values=torch.linspace(1, 0, n),
        flagged=flagged,
        reasons=tuple("small & sure" if f else "" for f in flagged.tolist()),
        columns={},
        verdict=Verdict(
            status="found",
            rule="class_scan",
            summary="Class 1 stands out.",
            num_flagged=3,
            expected_false_alarms=0.4,
            poison_rate=0.25,
            poison_rate_interval=(0.1, 0.4),
            target_class=1,
            classes=(evidence,),
            health=("a remark",),
        ),
        provenance=Provenance(
            method="strip", settings={"a": (1, 2)}, seed=3, seconds=1.0,
            forwards_per_image=1.0,
        ),
        masks=torch.full((1, 4, 4), 255, dtype=torch.uint8),
        mask_ids=("dog/7.png",),
    )  # fmt: skip


@pytest.fixture
def images(found: Detection) -> ImageData:
    """Their pictures."""
    pixels = torch.arange(12 * 3 * 8 * 8) % 251
    return ImageData(
        images=pixels.reshape(12, 3, 8, 8).to(torch.uint8),
        labels=found.labels,
        ids=found.ids,
        class_names=found.class_names,
    )


@pytest.fixture
def report(found: Detection, images: ImageData) -> Report:
    """The report of the detection."""
    return make_report(
        title="detect <photos>",
        verdict=verdict_of(found),
        sections=detection_sections(
            found,
            images=images,
            vectors=torch.eye(12),
            captions={"dog/7.png": "</script>\u2028<b>a dog</b>"},
        ),
        run=run_of(found.provenance, command="bezoar detect '<photos>'"),
    )
