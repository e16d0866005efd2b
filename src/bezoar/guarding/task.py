"""One guard as it was asked for, with everything opened and checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from bezoar.data import ImageSource, PairSource, open_pairs, open_source
from bezoar.engine import Detector, check_classes, fingerprint_of, image_size_for
from bezoar.engine.relay import digest
from bezoar.errors import InputError, StorageError
from bezoar.guarding.places import check_place
from bezoar.guarding.settings import Guard, Tools, check_steps
from bezoar.models import (
    Architecture,
    DualEncoder,
    backbone_of,
    fingerprint,
    load_dual_encoder,
    load_encoder,
    load_model,
)
from bezoar.report import Decisions
from bezoar.runtime import Runtime
from bezoar.storage import read_object

CLEAN, WORK = "clean", "work"
Set = str | Path | ImageSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One guard as it was asked for.

    Attributes:
        source: The set.
        folder: Where all that is found goes.
        model: A classifier or an encoder that was given, if one was.
        model_text: Where it is from, in words; empty if none was given.
        is_encoder: Whether it is an encoder.
        pairs: The set with its captions, where an image-text model was given.
        clip: The image-text model.
        reference: A clean image-text model to compare it with.
        test: Clean, labelled test images.
        attack: Manifest of the attack whose trigger is shown on them.
        rule: What becomes of an image.
        tools: The methods.
        skip: Steps that are not done.
        decisions: What a person decided.
        image_size: Height and width that images are scored in.
        seed: Seeds everything random.
        runtime: Where and how to run.
        command: The command as it was typed.
    """

    source: ImageSource
    folder: Path
    model: nn.Module | None
    model_text: str
    is_encoder: bool
    pairs: PairSource | None
    clip: DualEncoder | None
    reference: DualEncoder | None
    test: ImageSource | None
    attack: Path | None
    rule: Guard
    tools: Tools
    skip: frozenset[str]
    decisions: Decisions
    image_size: tuple[int, int]
    seed: int
    runtime: Runtime
    command: str

    @cached_property
    def data_key(self) -> str:
        """A name for the content of the set; reading it takes one pass."""
        images = fingerprint_of(self.source, report=self.runtime.progress)
        if self.pairs is None:
            return images
        return digest(images=images, captions=list(self.pairs.captions()))

    @cached_property
    def model_key(self) -> str:
        """A name for the model that was given; empty if none was."""
        given = self.model if self.clip is None else self.clip
        return "" if given is None else fingerprint(given)

    @property
    def detector(self) -> Detector:
        """What finds the poison."""
        return self.tools.detector_for(is_encoder=self.is_encoder)

    @property
    def clean(self) -> Path:
        """Where the clean set goes."""
        return self.folder / CLEAN

    @property
    def architecture(self) -> Architecture:
        """The network to train on this set."""
        given = self.tools.architecture or Architecture(
            name="convnet", num_classes=len(self.source.class_names), width=32
        )
        height, width = self.image_size
        return replace(
            given,
            num_classes=len(self.source.class_names),
            class_names=self.source.class_names,
            image_size=height if height == width else None,
        )

    def key(self, **facts: object) -> str:
        """Return a name for all that a result depends on.

        Args:
            **facts: Besides the set, the seed and the size of the images.

        Returns:
            A hexadecimal hash.
        """
        return digest(
            data=self.data_key, seed=self.seed, image_size=self.image_size, **facts
        )

    def working(self, name: str) -> Runtime:
        """Return the runtime for a step that can be taken up in the middle.

        Args:
            name: Of the folder for what it needs then.

        Returns:
            The same runtime with that folder.
        """
        return replace(self.runtime, work_dir=self.folder / WORK / name)


def make_task(
    data: Set,
    *,
    out: str | Path,
    model: str | nn.Module | None,
    encoder: str | nn.Module | None,
    clip: str | DualEncoder | None,
    reference: str | DualEncoder | None,
    test: Set | None,
    attack: str | Path | None,
    rule: Guard,
    tools: Tools,
    skip: Collection[str],
    decisions: Decisions | None,
    image_size: int | None,
    unsafe_pickle: bool,
    seed: int,
    runtime: Runtime,
    command: str,
) -> Task:
    """Open and check all that a guard was given.

    Args:
        data: The set.
        out: Folder of the run.
        model: A classifier that was trained on the set, or where it is.
        encoder: An encoder instead.
        clip: An image-text model instead; the set is read with its captions.
        reference: A clean image-text model.
        test: Clean, labelled test images.
        attack: Manifest of an attack.
        rule: What becomes of an image.
        tools: The methods.
        skip: Steps that are not done.
        decisions: What a person decided.
        image_size: Height and width; None leaves it to the model, then the set.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        seed: Seeds everything random.
        runtime: Where and how to run.
        command: The command as it was typed.

    Returns:
        The task.

    Raises:
        InputError: If two of the things given make no sense together.
    """
    if sum(given is not None for given in (model, encoder, clip)) > 1:
        raise InputError(
            "expected a classifier, an encoder or an image-text model, got two of "
            "them; give one"
        )
    if reference is not None and clip is None:
        raise InputError(
            "expected an image-text model beside the reference, got none; give it as "
            "clip"
        )
    if attack is not None and test is None:
        raise InputError(
            "expected test images beside the attack, got none; give clean test images "
            "to show the trigger on"
        )
    pairs = None if clip is None else _pairs(data)
    source = data if isinstance(data, ImageSource) else None
    if pairs is not None:
        source = pairs.images
    elif source is None:
        source = open_source(str(data))
    folder = Path(out)
    check_place(folder, source)
    given = model if model is not None else encoder
    loaded = given if not isinstance(given, str) else None
    if isinstance(encoder, str):
        loaded = load_encoder(encoder, unsafe_pickle=unsafe_pickle)
    elif isinstance(model, str):
        loaded = load_model(
            model,
            num_classes=len(source.class_names) or None,
            unsafe_pickle=unsafe_pickle,
        )
    if loaded is not None and encoder is None:
        check_classes(loaded, source)
    tried = test if isinstance(test, ImageSource) or test is None else open_source(test)
    return Task(
        source=source,
        folder=folder,
        model=loaded,
        model_text=given if isinstance(given, str) else "given" * (given is not None),
        is_encoder=encoder is not None,
        pairs=pairs,
        clip=_dual(clip, unsafe_pickle=unsafe_pickle),
        reference=_dual(reference, unsafe_pickle=unsafe_pickle),
        test=tried,
        attack=None if attack is None else Path(attack),
        rule=rule,
        tools=tools,
        skip=check_steps(skip),
        decisions=decisions or Decisions(by_id={}),
        image_size=image_size_for(
            source,
            asked=image_size,
            model=None if loaded is None else backbone_of(loaded),
        ),
        seed=seed,
        runtime=runtime,
        command=command,
    )


def _pairs(data: Set) -> PairSource:
    if isinstance(data, ImageSource):
        data = data.spec
    return open_pairs(data)


def _dual(
    given: str | DualEncoder | None, *, unsafe_pickle: bool
) -> DualEncoder | None:
    if isinstance(given, str):
        return load_dual_encoder(given, unsafe_pickle=unsafe_pickle)
    return given


def check_same_set(task: Task) -> None:
    """Check that the decisions and an earlier guard in this folder are of this set.

    Args:
        task: The guard.

    Raises:
        InputError: If the decisions are on another set.
        StorageError: If the guard was of another set, or of this one in another state.
    """
    if task.decisions.data not in ("", task.data_key):
        raise InputError(
            "expected decisions on this set, got some on another one; save them on the "
            "page of this run"
        )
    told = task.folder / "run.json"
    facts = read_object(told).get("fingerprints") if told.exists() else None
    if isinstance(facts, dict) and facts.get("data") not in (None, task.data_key):
        raise StorageError(
            f"expected a guard of the same set in {str(task.folder)!r}, got one of "
            "another, or the set has changed since; choose another --out"
        )
