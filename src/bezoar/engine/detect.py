"""Detect poison in a source of any size with a method that scores image by image."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import Field, asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from bezoar.data import ImageData, Unreadable
from bezoar.engine.local import BlockSource, collect, run_blocks, sample_source
from bezoar.engine.relay import OnDemand, Relay, digest
from bezoar.errors import StorageError
from bezoar.models import fingerprint
from bezoar.results import Detection, Scores
from bezoar.runtime import Runtime
from bezoar.storage import RunLock, read_object, write_json

PREPARED = "prepared.json"


@runtime_checkable
class BlockDetector(Protocol):
    """A detector whose score of an image does not depend on the other images."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def calibration_images(self) -> int:
        """How many images ``prepare`` wants to see; 0 for none."""

    def prepare(
        self, sample: ImageData | None, *, model: nn.Module, seed: int, runtime: Runtime
    ) -> BlockDetector:
        """Return the method with all settings fixed that scores depend on.

        Args:
            sample: Some of the images; None where none were asked for.
            model: The model that was trained on the images.
            seed: The seed given.
            runtime: Where and how to run.
        """

    def score(
        self,
        data: ImageData,
        *,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> Scores:
        """Return the raw columns of one block.

        Args:
            data: The images of the block.
            model: The model that was trained on the images.
            sample: What ``prepare`` was given; the same for every block.
            seed: The seed given.
            runtime: Where and how to run; progress counts the images of this block.
        """

    def conclude(
        self,
        scores: Scores,
        *,
        class_names: tuple[str, ...],
        reference: Detection | None,
        seed: int,
        seconds: float,
    ) -> Detection:
        """Return the verdict on all images.

        Args:
            scores: The raw columns of all images.
            class_names: Names by class index.
            reference: A detection on clean data with the same settings.
            seed: The seed given.
            seconds: Wall-clock time of the work so far.
        """

    def witnesses(self, detection: Detection) -> tuple[str, ...]:
        """Return ids of the images to see again before the verdict stands.

        Args:
            detection: What ``conclude`` came to.
        """

    def confirm(
        self,
        detection: Detection,
        witnesses: ImageData,
        *,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> Detection:
        """Return the verdict after the second look; not called without witnesses.

        Args:
            detection: What ``conclude`` came to.
            witnesses: The images asked for, in that order.
            model: The model that was trained on the images.
            sample: What ``prepare`` was given.
            seed: The seed given.
            runtime: Where and how to run.
        """


def detect_source(
    source: BlockSource,
    *,
    method: BlockDetector,
    model: nn.Module,
    image_size: tuple[int, int],
    reference: Detection | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> tuple[Detection, tuple[Unreadable, ...]]:
    """Detect poison in a source, in memory for two blocks of images.

    With ``runtime.work_dir`` a run that was killed goes on where it was, with the
    settings that it had calibrated, and gives the same scores.

    Args:
        source: The images.
        method: A detector that scores image by image.
        model: The model that was trained on the images.
        image_size: Height and width that images are resized to.
        reference: A detection on clean data with the same settings.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        The detection, and the images that could not be read. An ``EmptyError`` follows
        when none can be read, a ``StorageError`` when the work folder holds other
        results, is in use or cannot be written.
    """
    start = time.perf_counter()
    folder = runtime.work_dir
    key = digest(
        method=type(method).__name__,
        settings=asdict(method),
        model=fingerprint(model),
        layers=[type(layer).__qualname__ for layer in model.modules()],
        seed=seed,
        image_size=image_size,
        dtype=str(runtime.compute_dtype()),
        format=source.format,
        class_names=source.class_names,
        num_images=source.num_images,
    )
    relay = Relay(runtime.progress, stage="score")
    inside = relay.inside(runtime)
    # A run that has nothing left to score does not read the source for it.
    sample = OnDemand(
        lambda: _calibration_sample(
            source, method, image_size=image_size, seed=seed, runtime=runtime
        )
    )
    with RunLock(folder, name=".detect.lock") if folder else nullcontext():
        ready = _restored(method, key=key, folder=folder)
        if ready is None:
            ready = method.prepare(sample(), model=model, seed=seed, runtime=runtime)
            _keep(method, ready, key=key, folder=folder)
        scores, unreadable = run_blocks(
            source,
            _Scoring(
                method=ready, model=model, sample=sample, seed=seed, runtime=inside
            ),
            image_size=image_size,
            key=digest(key=key, settings=asdict(ready)),
            runtime=replace(runtime, progress=relay.between_blocks),
        )
    detection = ready.conclude(
        scores,
        class_names=source.class_names,
        reference=reference,
        seed=seed,
        seconds=time.perf_counter() - start,
    )
    if again := ready.witnesses(detection):
        detection = ready.confirm(
            detection,
            collect(source, again, image_size=image_size),
            model=model,
            sample=sample(),
            seed=seed,
            runtime=inside,
        )
    return detection, unreadable


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scoring:
    """Scores a block, here or on a worker that it was sent to."""

    method: BlockDetector
    model: nn.Module
    sample: OnDemand[ImageData | None]
    seed: int
    runtime: Runtime

    def __call__(self, data: ImageData) -> Scores:
        return self.method.score(
            data,
            model=self.model,
            sample=self.sample(),
            seed=self.seed,
            runtime=self.runtime,
        )


def _calibration_sample(
    source: BlockSource,
    method: BlockDetector,
    *,
    image_size: tuple[int, int],
    seed: int,
    runtime: Runtime,
) -> ImageData | None:
    num_images = method.calibration_images
    if num_images == 0:
        return None
    return sample_source(
        source, num_images, image_size=image_size, seed=seed, runtime=runtime
    )


def _restored(
    method: BlockDetector, *, key: str, folder: Path | None
) -> BlockDetector | None:
    if folder is None or not (folder / PREPARED).exists():
        return None
    stored = read_object(folder / PREPARED)
    changes = stored.get("changes")
    if stored.get("key") != key or not isinstance(changes, dict):
        raise StorageError(
            f"expected the settings of this run in {str(folder / PREPARED)!r}, got a "
            "folder that holds results of other settings, another model or other "
            "data; choose another --out or remove it"
        )
    return _changed(method, changes)


def _keep(
    method: BlockDetector, ready: BlockDetector, *, key: str, folder: Path | None
) -> None:
    if folder is None:
        return
    before, after = asdict(method), asdict(ready)
    changes = {name: after[name] for name in after if after[name] != before[name]}
    assert _changed(method, changes) == ready  # or a restart would score otherwise
    write_json(folder / PREPARED, {"format": 1, "key": key, "changes": changes})


def _changed(method: BlockDetector, changes: Mapping[str, object]) -> BlockDetector:
    settings = {name: _frozen(value) for name, value in changes.items()}
    return replace(method, **settings)


def _frozen(value: object) -> object:
    # Settings are hashable: what JSON calls a list was a tuple.
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
