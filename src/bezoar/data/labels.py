"""Raw labels of any kind to class indices, and the names of the classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bezoar.data.images import UNLABELLED
from bezoar.errors import InputError

_MOST_CLASSES = 100_000  # beyond it the column holds no classes but numbers or texts


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a set, and how its raw labels name them.

    Attributes:
        names: Names by class index; empty where there are no labels.
        index: Class index by text, where the labels are texts.
    """

    names: tuple[str, ...] = ()
    index: Mapping[str, int] | None = None

    def label_of(self, value: object) -> int | None:
        """Return the class index of one raw label.

        Args:
            value: The label as it is stored; None where it is missing.

        Returns:
            The index, -1 in a set without labels, None where it is missing.
        """
        if not self.names:
            return UNLABELLED
        plain = _plain(value)
        if self.index is None or plain is None:
            return plain if isinstance(plain, int) else None
        return self.index.get(str(plain))


def find_classes(
    labels: Iterable[tuple[str, object]], *, declared: tuple[str, ...] | None = None
) -> Classes:
    """Find the classes that raw labels name.

    Texts are sorted; whole numbers are indices, named by themselves unless names were
    declared; beside them texts are no labels. Labels that are all missing, or all -1,
    are none.

    Args:
        labels: An image's id and its label as it is stored. Repeated labels may be
            left out.
        declared: Names by index that the set itself declares.

    Returns:
        The classes.

    Raises:
        InputError: If a label is outside the names, or of a kind that names no class.

    Example:
        >>> find_classes([("1.png", "dog"), ("2.png", "cat")]).names
        ('cat', 'dog')
    """
    numbers: dict[int, str] = {}
    texts: dict[str, str] = {}
    for id_, value in labels:
        try:
            plain = _plain(value)
        except InputError as error:
            raise InputError(f"{error}, got {value!r} for {id_!r}") from None
        if isinstance(plain, str):
            texts.setdefault(plain, id_)
        elif plain is not None:
            numbers.setdefault(plain, id_)
        if len(texts) + len(numbers) > _MOST_CLASSES:
            raise InputError(
                f"expected at most {_MOST_CLASSES:,} classes, got more labels up to "
                f"{id_!r}; name the column that holds the class"
            )
    if texts and not numbers:
        names = tuple(sorted(texts))
        return Classes(names=names, index={name: i for i, name in enumerate(names)})
    if not numbers or set(numbers) == {UNLABELLED}:
        return Classes()
    return Classes(names=_named(numbers, declared))


def _named(
    numbers: Mapping[int, str], declared: tuple[str, ...] | None
) -> tuple[str, ...]:
    low, high = min(numbers), max(numbers)
    last = len(declared) - 1 if declared else _MOST_CLASSES - 1
    if low < 0 or high > last:
        wrong = low if low < 0 else high
        raise InputError(
            f"expected labels from 0 to {last}, got {wrong} for {numbers[wrong]!r}; "
            "correct the label or name all the classes"
        )
    return declared or tuple(str(i) for i in range(high + 1))


def _plain(value: object) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)  # a bool too
    if isinstance(value, float):  # tables turn whole numbers with gaps into floats
        if math.isnan(value):
            return None
        if value.is_integer():
            return int(value)
    raise InputError("expected whole numbers or text as labels")
