"""What every purifier does at its end: measure the change and pack the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.metrics import change_columns, drift
from bezoar.models import fingerprint
from bezoar.results import Provenance, Purification, PurificationReport, Scores
from bezoar.shapes import Float, UInt8


def packed(
    data: ImageData,
    images: UInt8[Tensor, "n c h w"],
    *,
    method: Any,
    seed: int,
    seconds: float,
    columns: Mapping[str, Float[Tensor, " n"]] | None = None,
    extras: Mapping[str, Float[Tensor, "n c h w"]] | None = None,
    networks: Mapping[str, nn.Module] | None = None,
    conclude: Callable[[Scores], PurificationReport] | None = None,
) -> Purification:
    """Return purified images with the measures of how they changed.

    Args:
        data: The images given.
        images: The same images purified.
        method: The method's settings, whose ``conclude`` makes the report where no
            other is given.
        seed: The seed given.
        seconds: Wall-clock time of the work.
        columns: Raw columns of the method.
        extras: Image-shaped tensors that a report can show.
        networks: Trained networks that were used, by keyword; the provenance holds
            their fingerprints.
        conclude: Makes the report, for a method that has no public ``conclude``.

    Returns:
        The purification.
    """
    rows = Scores(
        ids=data.ids,
        labels=data.labels,
        columns={**change_columns(data.images, images), **(columns or {})},
    )
    report: PurificationReport = (
        conclude(rows)
        if conclude is not None
        else method.conclude(
            rows, class_names=data.class_names, seed=seed, seconds=seconds
        )
    )
    used = {name: fingerprint(net) for name, net in (networks or {}).items()}
    settings = {**report.provenance.settings, **used}
    return Purification(
        data=replace(data, images=images),
        columns=report.columns,
        summary=report.summary,
        health=report.health,
        provenance=replace(report.provenance, settings=settings),
        extras=extras or {},
        figures=report.figures,
        history=report.history,
    )


def reported(
    rows: Scores,
    *,
    method: Any,
    name: str,
    summary: str,
    class_names: tuple[str, ...],
    seed: int,
    seconds: float,
    forwards_per_image: float = 0.0,
    health: tuple[str, ...] = (),
    figures: Mapping[str, float] | None = None,
    history: tuple[Mapping[str, object], ...] = (),
) -> PurificationReport:
    """Return the report on a purification.

    Args:
        rows: The columns of all images.
        method: The method's settings.
        name: The method's name in the catalog.
        summary: One or two sentences for a reader who is not a researcher.
        class_names: Names by class index.
        seed: The seed given.
        seconds: Wall-clock time of the work.
        forwards_per_image: Forward-equivalents spent on an image.
        health: Warnings of the method; those that any change calls for are added.
        figures: Numbers about the whole set.
        history: One row of numbers per epoch.

    Returns:
        The report.
    """
    return PurificationReport(
        ids=rows.ids,
        labels=rows.labels,
        class_names=class_names,
        columns=rows.columns,
        summary=summary,
        health=(*health, *_health_of(rows.columns)),
        provenance=Provenance(
            method=name,
            settings=asdict(method),
            seed=seed,
            seconds=seconds,
            forwards_per_image=forwards_per_image,
        ),
        figures=figures or {},
        history=history,
    )


def change_in_words(columns: Mapping[str, Tensor]) -> str:
    """Return how far the images moved, for a summary.

    Args:
        columns: What ``change_columns`` returned.

    Returns:
        A clause such as "they moved to 24.1 dB PSNR, 0.880 SSIM in the mean".
    """
    values = columns["psnr"]
    changed = values.isfinite()
    if not changed.any():
        return "not one of them changed"
    share = ""
    if not changed.all():
        share = f"{int(changed.sum()):,} of {len(values):,} changed, and "
    mean, likeness = values[changed].mean().item(), columns["ssim"].mean().item()
    return f"{share}they moved to {mean:.1f} dB PSNR, {likeness:.3f} SSIM in the mean"


def _health_of(columns: Mapping[str, Tensor]) -> tuple[str, ...]:
    still = (columns["max_change"] == 0).float().mean().item()
    nothing = (
        f"{100 * still:.0f} % of the images did not change at all: what may be in them "
        "is still there",
    )
    return (*(nothing if still > 0.5 else ()), *drift(columns))
