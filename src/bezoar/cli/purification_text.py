"""A purification in words, and as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bezoar.cli.runs import told_in
from bezoar.cli.text import facts, shown
from bezoar.data import Unreadable
from bezoar.results import PurificationReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Cleaned:
    """What came of ``bezoar purify``.

    Attributes:
        report: What was done to each image.
        unreadable: Images that could not be read.
        folder: Where the files of the run lie.
        out: Where the purified set lies.
        num_written: Images written there.
        image_size: Height and width of the purified images.
        seconds: By stage.
    """

    report: PurificationReport
    unreadable: tuple[Unreadable, ...]
    folder: Path
    out: Path
    num_written: int
    image_size: tuple[int, int]
    seconds: Mapping[str, float]

    @property
    def files(self) -> dict[str, str]:
        """What was written beside the set, and what it is."""
        every = {
            "report.html": "the page to look at: open it in a browser",
            "changes.parquet": "every image with how it changed",
            "report.json": "the summary and how it came about",
            "unreadable.csv": "the images that could not be read",
            "run.json": "settings, versions and fingerprints",
            "rough.safetensors": "the autoencoder of the first stage",
            "fine.safetensors": "the autoencoder of the second stage",
        }
        return {
            str(self.folder / name): what
            for name, what in every.items()
            if (self.folder / name).exists()
        }


def purification_text(done: Cleaned) -> str:
    """Return the summary that a person reads.

    Args:
        done: What came of the run.

    Returns:
        Some lines.
    """
    report, bad = done.report, len(done.unreadable)
    height, width = done.image_size
    psnr, columns = report.mean_psnr, report.columns
    rows = [
        ("set", f"{done.num_written:,} images of {height}x{width} in {done.out}"),
        ("unreadable", f"{bad:,}, left out" if bad else ""),
        ("PSNR", f"{psnr:.1f} dB in the mean"),
        ("SSIM", f"{columns['ssim'].mean().item():.3f} in the mean"),
        (
            "change",
            f"{columns['max_change'].mean().item() * 255:.0f} of 255 levels at most, "
            "in the mean over the images",
        ),
        *(("health", text) for text in report.health),
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in done.unreadable[:3]),
    ]
    parts = [shown(report.summary), facts(rows), facts(done.files.items())]
    return "\n\n".join(parts)


def purification_json(done: Cleaned) -> dict[str, object]:
    """Return what ``--json`` prints.

    Args:
        done: What came of the run.

    Returns:
        What ``report.json`` holds but for the page, and what is not in it.
    """
    return {
        **told_in(done.folder),
        "out": str(done.out),
        "num_written": done.num_written,
        "image_size": list(done.image_size),
        "unreadable": [{"id": u.id, "reason": u.reason} for u in done.unreadable],
        "files": list(done.files),
        "seconds": dict(done.seconds),
    }
