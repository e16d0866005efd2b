"""Any detector on any source: block by block, by features, or all at once."""

from __future__ import annotations

import os
import time
from dataclasses import Field, replace
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from torch import nn

from bezoar.data import ImageData, Unreadable, join
from bezoar.engine.detect import BlockDetector, detect_source
from bezoar.engine.features import feature_pass
from bezoar.engine.local import BlockSource
from bezoar.errors import EmptyError, InputError
from bezoar.results import Detection, Features
from bezoar.runtime import Progress, Runtime

_MOST_MEMORY = 0.4  # of all: while a set is joined, twice that is in use


@runtime_checkable
class FeatureDetector(Protocol):
    """A detector that looks at the features of all images together."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def layer(self) -> str | None:
        """Whose output it takes as features."""

    def from_features(
        self,
        features: Features,
        *,
        reference: Detection | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Return scores and verdict.

        Args:
            features: Of all images, by ``layer``.
            reference: A detection on clean data with the same settings.
            seed: The seed given.
            runtime: Where and how to run.
        """


@runtime_checkable
class SetDetector(Protocol):
    """A detector that needs all images in memory, as one that trains on them does."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def uses_model(self) -> bool:
        """Whether it looks at the model at all."""

    def detect(
        self,
        data: ImageData,
        *,
        model: nn.Module | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Return scores and verdict.

        Args:
            data: All images.
            model: The model that was trained on them.
            seed: The seed given.
            runtime: Where and how to run.
        """


Detector: TypeAlias = BlockDetector | FeatureDetector | SetDetector


def uses_model(method: Detector) -> bool:
    """Return whether a detector looks at a model.

    Args:
        method: The detector.

    Returns:
        False for those that train their own.
    """
    return not isinstance(method, SetDetector) or method.uses_model


def detect_with(
    source: BlockSource,
    *,
    method: Detector,
    model: nn.Module | None,
    image_size: tuple[int, int],
    reference: Detection | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> tuple[Detection, tuple[Unreadable, ...]]:
    """Detect poison in a source with any detector.

    Those that score image by image and those that look at features hold two blocks of
    images in memory; one that trains on the set holds all of it.

    Args:
        source: The images.
        method: The detector.
        model: The model that was trained on the images; a method that trains its own
            does without.
        image_size: Height and width that images are resized to.
        reference: A detection on clean data with the same settings.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        The detection, and the images that could not be read.

    Raises:
        InputError: If a model is missing, or the method takes no reference or cannot
            be spread over an engine's workers.
    """
    if uses_model(method) and model is None:
        raise InputError(
            f"expected a model for {type(method).__name__}, got none; give the one "
            "that was trained on the images"
        )
    if isinstance(method, BlockDetector):
        assert model is not None
        return detect_source(
            source,
            method=method,
            model=model,
            image_size=image_size,
            reference=reference,
            seed=seed,
            runtime=runtime,
        )
    start = time.perf_counter()
    if isinstance(method, FeatureDetector):
        assert model is not None
        features, unreadable = feature_pass(
            source,
            model=model,
            layer=method.layer,
            image_size=image_size,
            runtime=runtime,
        )
        found = method.from_features(
            features, reference=reference, seed=seed, runtime=runtime
        )
    else:
        if runtime.engine is not None:
            raise InputError(
                f"expected no engine for {type(method).__name__}, which looks at all "
                "images at once, got one; leave it out"
            )
        if reference is not None:
            raise InputError(
                f"expected no reference for {type(method).__name__}, got one; leave "
                "it out"
            )
        data, unreadable = read_all(source, image_size=image_size, runtime=runtime)
        found = method.detect(data, model=model, seed=seed, runtime=runtime)
    spent = replace(found.provenance, seconds=time.perf_counter() - start)
    return replace(found, provenance=spent), unreadable


def read_all(
    source: BlockSource, *, image_size: tuple[int, int], runtime: Runtime
) -> tuple[ImageData, tuple[Unreadable, ...]]:
    """Read a source into memory.

    Args:
        source: The images.
        image_size: Height and width that images are resized to.
        runtime: Block size and progress.

    Returns:
        The images that can be read, and the others.

    Raises:
        EmptyError: If none can be read.
        InputError: If they would take more than two fifths of the memory.
    """
    parts: list[ImageData] = []
    unreadable: list[Unreadable] = []
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    held = 0
    for block in source.blocks(runtime.block_size, image_size=image_size, skip=()):
        unreadable += block.unreadable
        if block.data is not None:
            parts.append(block.data)
            held += block.data.images.numel()
        if held > _MOST_MEMORY * memory:
            raise InputError(
                f"expected a set that fits into memory, got more than "
                f"{held / 2**30:.1f} GiB of {memory / 2**30:.1f}; lower the image "
                "size, give a part of the set, or take a method that does not train"
            )
        done = sum(map(len, parts)) + len(unreadable)
        total = source.num_images or 0
        runtime.progress(Progress(stage="read", done=done, total=total))
    if not parts:
        raise EmptyError(
            f"expected images, got {len(unreadable)} files and none that can be read; "
            "check the path and the format"
        )
    return join(parts), tuple(unreadable)
