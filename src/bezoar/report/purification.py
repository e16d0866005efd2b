"""What a page shows of a purification."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bezoar.data import ImageData, Unreadable
from bezoar.report.pictures import Budget, difference, picture
from bezoar.report.sections import (
    Section,
    facts,
    filled,
    notes,
    pictures,
    table,
    unreadable_notes,
)
from bezoar.results import PurificationReport

_EXAMPLE_BYTES = 400_000


def purification_sections(
    report: PurificationReport,
    *,
    before: ImageData | None = None,
    after: ImageData | None = None,
    unreadable: Sequence[Unreadable] = (),
) -> list[Section]:
    """Return what a page shows of a purification.

    Args:
        report: What was done to each image.
        before: Some of the images as they were.
        after: The same images, purified.
        unreadable: Images that could not be read.

    Returns:
        The sections, empty ones left out.
    """
    means = [
        (name, _mean(values))
        for name, values in report.columns.items()
        if values.isfinite().any()
    ]
    parts = [
        notes("Warnings", report.health),
        _examples(report, before, after),
        facts("Figures", [(k, f"{v:.4g}") for k, v in report.figures.items()]),
        table("Mean change of an image", ("column", "mean"), means),
        unreadable_notes(unreadable),
    ]
    return filled(parts)


def _examples(
    report: PurificationReport, before: ImageData | None, after: ImageData | None
) -> Section:
    rows: list[tuple[str, str, list[str]]] = []
    if before is not None and after is not None:
        place = {id_: i for i, id_ in enumerate(report.ids)}
        budget = Budget(_EXAMPLE_BYTES)
        for i, (id_, old) in enumerate(zip(before.ids, before.images, strict=True)):
            new = after.images[i]
            shown = [picture(p, exact=True) for p in (old, new, difference(old, new))]
            if not budget.takes("".join(shown)):
                break
            psnr = report.columns["psnr"][place[id_]].item()
            note = "unchanged" if psnr == float("inf") else f"{psnr:.1f} dB"
            rows.append((id_, note, shown))
    return pictures(
        "Before and after",
        ("before", "after", "difference, 8 times"),
        rows,
        text="The images that changed most. Grey in the difference is no change.",
    )


def _mean(values: Tensor) -> float:
    finite = values[values.isfinite()].double()
    return round(float(finite.mean()), 5)
