"""What every attack on a data set shares: which images it takes, and its settings.

Images are taken in the order of a hash of the seed and their content, so that the
choice depends neither on their order nor on the attack, and a set at a low poison
rate is part of the set at a higher one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from bezoar.data import ImageData, content_keys
from bezoar.errors import InputError
from bezoar.results import Poisoned, Provenance
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Bool, Float, Int64, UInt8

MAX_CLEAN_LABEL_RATE = 0.08
"""Most that a clean-label attack takes: of ten equal classes a fifth stays clean."""

Change = Callable[[UInt8[Tensor, "b c h w"]], UInt8[Tensor, "b c h w"]]


@runtime_checkable  # for the checks of the tests
class AttackSettings(Protocol):
    """The fields that every attack has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def poison_rate(self) -> float:
        """Poisoned images divided by all images given."""

    @property
    def target_class(self) -> int:
        """The class that the trigger leads to."""


def check_between(name: str, value: float, *, low: float, high: float) -> None:
    """Check that a setting lies in a closed interval.

    Args:
        name: The setting.
        value: What was given.
        low: Least allowed.
        high: Most allowed.

    Raises:
        InputError: If the value is outside, or not a number.
    """
    if not low <= value <= high:
        raise InputError(
            f"expected {name} from {low:g} to {high:g}, got {value:g}; "
            f"choose a {name} in that range"
        )


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that a setting is one of the names allowed.

    Args:
        name: The setting.
        value: What was given.
        choices: The names allowed.

    Raises:
        InputError: If the value is none of them.
    """
    if value not in choices:
        raise InputError(
            f"expected {name} to be one of {', '.join(choices)}, got {value!r}; "
            "choose one of them"
        )


def check_attack(
    poison_rate: float, target_class: int, *, clean_label: bool = False
) -> None:
    """Check the two settings that every attack has.

    Args:
        poison_rate: Poisoned images divided by all images.
        target_class: Class index.
        clean_label: Whether only images of the target class are poisoned.

    Raises:
        InputError: If one is out of range.
    """
    most = MAX_CLEAN_LABEL_RATE if clean_label else 1.0
    if not 0 < poison_rate <= most:
        whom = "clean-label attack" if clean_label else "attack"
        raise InputError(
            f"expected a poison_rate above 0 and at most {most:g} for this {whom}, "
            f"got {poison_rate:g}; it is a share of all images given"
        )
    if target_class < 0:
        raise InputError(
            f"expected a target_class of at least 0, got {target_class}; "
            "give the index of a class"
        )


def check_size(images: Tensor, *, height: int, width: int, what: str) -> None:
    """Check that a trigger fits into the images.

    Args:
        images: Images NCHW.
        height: Least height that the trigger needs.
        width: Least width that the trigger needs.
        what: What needs the room, for the message.

    Raises:
        InputError: If the images are smaller.
    """
    rows, columns = images.shape[-2:]
    if rows < height or columns < width:
        raise InputError(
            f"expected images of at least {height}x{width} pixels for {what}, got "
            f"{rows}x{columns}; give larger images or choose a smaller trigger"
        )


def truncate(levels: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Return grey levels cut down to whole ones, as the published triggers are.

    Args:
        levels: Grey levels, 0 to 255, in float64; what is outside is clamped.

    Returns:
        The whole part of each level. A millionth is added first, or 0.8 x + 0.2 x
        could come out as x - 1.
    """
    return (levels + 1e-6).floor().clamp(0, 255).to(torch.uint8)


def by_chunks(images: UInt8[Tensor, "n c h w"], change: Change) -> Tensor:
    """Change many images a few at a time: in float64 they take eight times the room.

    Args:
        images: Images as they are stored.
        change: Works on each image alone.

    Returns:
        The changed images, uint8.
    """
    starts = range(0, len(images), 256)
    return torch.cat([change(images[first : first + 256]) for first in starts])


def choose(
    data: ImageData,
    *,
    poison_rate: float,
    target_class: int,
    clean_label: bool,
    seed: int,
) -> Bool[Tensor, " n"]:
    """Choose the images to poison.

    Args:
        data: All images given.
        poison_rate: Share of them to poison.
        target_class: The class that a clean-label attack keeps to.
        clean_label: Take images of the target class only; else of any class.
        seed: Seeds the choice.

    Returns:
        True for ``round(poison_rate * n)`` images.

    Raises:
        InputError: If the images have no labels, the class does not exist, none
            would be chosen, or the class is too small.
    """
    check_target(data, target_class)
    count = round(poison_rate * len(data))
    if count == 0:
        raise InputError(
            f"expected a poison_rate that takes at least one of {len(data)} images, "
            f"got {poison_rate:g}; raise it or give more images"
        )
    allowed = data.labels == target_class if clean_label else data.labels >= 0
    candidates = allowed.nonzero().flatten()
    if len(candidates) < count:
        most = math.floor(1e4 * len(candidates) / len(data)) / 1e4
        raise InputError(
            f"expected at least {count} images of class {target_class} to poison "
            f"{poison_rate:g} of {len(data)} images, got {len(candidates)}; lower "
            f"poison_rate to {most:g} or choose a larger target_class"
        )
    chosen = torch.zeros(len(data), dtype=torch.bool)
    chosen[ranked(data, candidates, seed=seed)[:count]] = True
    return chosen


def ranked(
    data: ImageData, candidates: Int64[Tensor, " m"], *, seed: int
) -> Int64[Tensor, " m"]:
    """Return images in the order in which an attack takes them.

    Args:
        data: All images given.
        candidates: Positions of those that may be taken.
        seed: Seeds the order, which else depends on the images' content alone.

    Returns:
        The same positions; the id decides between equal images.
    """
    is_whole = len(candidates) == len(data)
    keys = content_keys(data.images if is_whole else data.images[candidates])
    ids = [data.ids[i] for i in candidates.tolist()]
    names = [(_digest(seed, key), i) for key, i in zip(keys, ids, strict=True)]
    return candidates[sorted(range(len(names)), key=names.__getitem__)]


def _digest(seed: int, key: str) -> bytes:
    return hashlib.blake2b(
        repr((seed, "poison", key)).encode(), digest_size=16
    ).digest()


def check_target(data: ImageData, target_class: int) -> None:
    """Check that a data set has the class that an attack leads to.

    Args:
        data: The data set.
        target_class: Class index.

    Raises:
        InputError: If the images have no labels or the class does not exist.
    """
    if not data.is_labelled:
        raise InputError(
            f"expected labelled images, got {len(data)} without labels; an attack on "
            "a data set leads to one of its classes, give their labels"
        )
    if not 0 <= target_class < len(data.class_names):
        raise InputError(
            f"expected a target_class from 0 to {len(data.class_names) - 1}, got "
            f"{target_class}; choose one of the {len(data.class_names)} classes"
        )


def plant(
    data: ImageData,
    *,
    method: str,
    attack: AttackSettings,
    change: Change,
    clean_label: bool,
    seed: int,
    runtime: Runtime,
    forwards: float = 0.0,
) -> Poisoned:
    """Poison a copy of a data set.

    Args:
        data: The clean set; it stays as it is.
        method: The attack's name in the catalog.
        attack: Its settings.
        change: Turns clean images into poisoned ones, each by itself.
        clean_label: Take images of the target class and keep the labels; else take
            images of every class and give them the target's label.
        seed: Seeds the choice of the images.
        runtime: Its batch size and progress are used.
        forwards: Forward-equivalents that ``change`` spends on an image.

    Returns:
        The poisoned set.
    """
    start = time.perf_counter()
    is_poison = choose(
        data,
        poison_rate=attack.poison_rate,
        target_class=attack.target_class,
        clean_label=clean_label,
        seed=seed,
    )
    rows, images, done = is_poison.nonzero().flatten(), data.images.clone(), 0
    for first in range(0, len(rows), runtime.batch_size):
        part = rows[first : first + runtime.batch_size]
        images[part] = change(data.images[part])
        done += len(part)
        runtime.progress(Progress(stage="poison", done=done, total=len(rows)))
    labels = data.labels.clone()
    labels[is_poison] = attack.target_class  # for clean labels it is that already
    return Poisoned(
        data=ImageData(
            images=images, labels=labels, ids=data.ids, class_names=data.class_names
        ),
        is_poison=is_poison,
        original_labels=data.labels.clone(),
        target_class=attack.target_class,
        provenance=Provenance(
            method=method,
            settings=asdict(attack),
            seed=seed,
            seconds=time.perf_counter() - start,
            forwards_per_image=forwards * len(rows) / len(data),
        ),
    )
