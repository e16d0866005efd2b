"""What becomes of each image when a set is written: dropped, kept, or replaced."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from bezoar.errors import InputError

Keep = Callable[[str], bool] | Collection[str] | None
Images = Mapping[str, Tensor] | Callable[[str], Tensor | None] | None


class Choice:
    """Decides about one image after the other, and notices ids that never came.

    Args:
        keep: The ids to keep, or a test of them; None keeps all.
        images: New images by id; None leaves all as they are.
    """

    def __init__(self, keep: Keep, images: Images) -> None:
        self._keep = keep
        self._images = images
        self._kept = frozenset(keep) if isinstance(keep, Collection) else None
        self._missing = set(self._kept or ())
        if isinstance(images, Mapping):
            self._missing.update(images)

    def keeps(self, id_: str) -> bool:
        """Decide whether an image is written.

        Args:
            id_: Its id.

        Returns:
            False if it is dropped.
        """
        self._missing.discard(id_)
        if self._kept is not None:
            return id_ in self._kept
        return self._keep(id_) if callable(self._keep) else True

    def png(self, id_: str) -> bytes | None:
        """Return the file that takes an image's place.

        Args:
            id_: Its id.

        Returns:
            A PNG; None where the image stays as it is.
        """
        if isinstance(self._images, Mapping):
            image = self._images.get(id_)
        else:
            image = self._images(id_) if self._images is not None else None
        return None if image is None else encode_png(image)

    def check_all_seen(self) -> None:
        """Check that every id that was named has come.

        Raises:
            InputError: If one is not in the set.
        """
        if self._missing:
            raise InputError(
                f"expected ids of the set, got {min(self._missing)!r} and "
                f"{len(self._missing) - 1} more that are not in it; nothing was written"
            )


def encode_png(image: Tensor) -> bytes:
    """Return an image as a file, without loss.

    Args:
        image: uint8 (c, h, w) with one or three channels.

    Returns:
        A PNG.

    Raises:
        InputError: If the image is of another type or shape.

    Example:
        >>> encode_png(torch.zeros(3, 2, 2, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    shape = tuple(image.shape)
    if image.dtype != torch.uint8 or len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(
            f"expected a uint8 image (c, h, w) of 1 or 3 channels, got {image.dtype} "
            f"{shape}; use to_uint8 and one image at a time"
        )
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[:, :, 0] if shape[0] == 1 else pixels)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def png_name(name: str, *, is_taken: Callable[[str], bool]) -> str:
    """Return the name of a file that becomes a PNG.

    Args:
        name: What it was called.
        is_taken: Tells whether another file has a name.

    Returns:
        The name with ``.png`` in place of its suffix, or after it where that is taken.
    """
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() == ".png":
        return name
    fresh = stem + ".png"
    while is_taken(fresh):
        name = fresh = name + ".png"
    return fresh
