"""Several detectors on one source: shared features, one table, one combined score."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor, nn

from bezoar.data import ImageData, Unreadable
from bezoar.engine.dispatch import Detector, FeatureDetector, detect_with
from bezoar.engine.features import feature_pass
from bezoar.engine.local import BlockSource
from bezoar.engine.memory import MemoryBlocks
from bezoar.errors import InputError
from bezoar.metrics.combination import combine
from bezoar.results import Detection, Features, Panel, Provenance
from bezoar.runtime import Runtime

METHOD = "combined"
_LEADING = 0.9  # weight of the first method


def detect_together(
    source: BlockSource | ImageData,
    *,
    methods: Mapping[str, Detector],
    model: nn.Module | None = None,
    image_size: tuple[int, int] | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> tuple[Panel, tuple[Unreadable, ...]]:
    """Detect poison in a source with several methods.

    Features are computed once for all methods that look at those of one layer. The
    methods that look at images read the source again, each by itself; with
    ``runtime.work_dir`` each has a folder of its name there and goes on after a kill.

    Args:
        source: The images, in memory or not.
        methods: The methods by the names that they have in the table.
        model: The model that was trained on the images.
        image_size: Height and width that images are resized to; may be left out for
            images in memory.
        weights: What each method counts in the combined score; None gives the first
            0.9 and the others equal shares of the rest.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        What the methods make of the set, and the images that could not be read.

    Raises:
        InputError: If there is no method, or no size for a source.

    Example:
        >>> from bezoar.data import noise_images
        >>> from bezoar.detect import SpectralSignatures, Strip
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> panel, _ = detect_together(
        ...     noise_images(8),
        ...     methods={"ss": SpectralSignatures(), "strip": Strip(num_overlays=2)},
        ...     model=net,
        ... )
        >>> sorted(panel.combined.columns)[:3]
        ['ss_predicted', 'ss_rank', 'ss_score']
    """
    if isinstance(source, ImageData):
        source = MemoryBlocks(data=source)
        image_size = image_size or source.image_size
    if not methods or image_size is None:
        raise InputError(
            f"expected methods and an image size, got {len(methods)} methods and "
            f"{image_size}; give both"
        )
    start = time.perf_counter()
    known: dict[str | None, tuple[Features, tuple[Unreadable, ...]]] = {}
    detections: dict[str, Detection] = {}
    unreadable: tuple[Unreadable, ...] = ()
    for name, method in methods.items():
        if isinstance(method, FeatureDetector) and model is not None:
            if method.layer not in known:
                known[method.layer] = feature_pass(
                    source,
                    model=model,
                    layer=method.layer,
                    image_size=image_size,
                    runtime=runtime,
                )
            features, unreadable = known[method.layer]
            found = method.from_features(features, seed=seed, runtime=runtime)
        else:
            folder = runtime.work_dir and runtime.work_dir / name
            found, unreadable = detect_with(
                source,
                method=method,
                model=model,
                image_size=image_size,
                seed=seed,
                runtime=replace(runtime, work_dir=folder),
            )
        detections[name] = found
    return side_by_side(
        detections,
        settings={name: asdict(method) for name, method in methods.items()},
        weights=weights,
        seed=seed,
        seconds=time.perf_counter() - start,
    ), unreadable


def side_by_side(
    detections: Mapping[str, Detection],
    *,
    settings: Mapping[str, object],
    weights: Mapping[str, float] | None = None,
    seed: int,
    seconds: float,
) -> Panel:
    """Put detections of one set into one table, with a combined score.

    Args:
        detections: By name; all of the same images.
        settings: Of the methods, by name.
        weights: What each counts in the combined score; None takes ``weights_of``.
        seed: The seed given.
        seconds: Wall-clock time of the work.

    Returns:
        The panel.

    Raises:
        InputError: If the images differ.
    """
    first = next(iter(detections.values()))
    for name, found in detections.items():
        if found.ids != first.ids:
            raise InputError(
                f"expected detections of the same images, got others by {name}; the "
                "data changed in between, run all of them again"
            )
    shares = dict(weights or weights_of(list(detections)))
    combined = combine(
        {name: found.scores for name, found in detections.items()}, shares
    )
    columns: dict[str, Tensor] = {}
    for name, found in detections.items():
        columns[f"{name}_score"] = found.scores
        columns[f"{name}_rank"] = found.ranks.float()
        columns.update({f"{name}_{k}": v for k, v in found.columns.items()})
    together = _judged(
        detections,
        combined,
        columns=columns,
        provenance=Provenance(
            method=METHOD,
            settings={"methods": dict(settings), "weights": shares},
            seed=seed,
            seconds=seconds,
            forwards_per_image=sum(
                found.provenance.forwards_per_image for found in detections.values()
            ),
        ),
    )
    return Panel(detections=dict(detections), weights=shares, combined=together)


def weights_of(names: Sequence[str]) -> dict[str, float]:
    """Return what each method counts in the combined score.

    Methods that miss an attack often rank its poison *below* clean images, so that an
    even mean of all ranks worse than the best of them (see the docs page of the
    comparison, also for mixtures that did better). So the first method leads.

    Args:
        names: The methods, the leading one first.

    Returns:
        0.9 for the first, equal shares of the rest for the others.

    Example:
        >>> weights_of(["cd", "ac", "ss"])
        {'cd': 0.9, 'ac': 0.05, 'ss': 0.05}
    """
    leader, *others = names
    if not others:
        return {leader: 1.0}
    rest = round((1 - _LEADING) / len(others), 6)
    return {leader: _LEADING, **dict.fromkeys(others, rest)}


def _judged(
    detections: Mapping[str, Detection],
    combined: Tensor,
    *,
    columns: Mapping[str, Tensor],
    provenance: Provenance,
) -> Detection:
    """Return the combined table with the verdict of the leading method.

    Scores that were combined by their ranks have no rule of their own that was tried
    on clean sets, so the verdict is that of the first method, which is the default.

    Args:
        detections: By name, the leading one first.
        combined: The combined score.
        columns: The table.
        provenance: How it came about.

    Returns:
        The detection.
    """
    leader, first = next(iter(detections.items()))
    told = "; ".join(
        f"{name}: {found.verdict.status}, {found.verdict.num_flagged} flagged"
        for name, found in detections.items()
    )
    return replace(
        first,
        scores=combined,
        columns=columns,
        verdict=replace(
            first.verdict,
            summary=f"{first.verdict.summary} (That is the verdict of {leader}.)",
            health=(*first.verdict.health, f"verdicts by method: {told}"),
        ),
        provenance=provenance,
        masks=None,
        mask_ids=(),
    )
