"""Image files to pixels: every kind to 8-bit RGB, and a plain reason where none comes.

Alpha is dropped, not blended: training pipelines call ``convert("RGB")``, and what a
model was trained on is what must be scored. Files that are more than 8 bits deep are
scaled to 8 bits; PIL's own conversion would clip them.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from bezoar.data.images import ImageData
from bezoar.data.records import MAX_PIXELS, Record, largest_file
from bezoar.errors import InputError
from bezoar.shapes import UInt8

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")  # none runs a program
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"P5", b"P6")
_ORIENTATION = 0x0112
_MAY_ROTATE = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
_NO_PIXELS = "damaged, or an image without pixels"


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image that could not be read.

    Attributes:
        id: Its name in the set.
        reason: Why, in plain words.
    """

    id: str
    reason: str


def decode_image(
    data: bytes,
    *,
    image_size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[Tensor, "3 h w"]:
    r"""Return the pixels of one image file.

    Rotation in the metadata is applied, the first frame of an animation is taken,
    and alpha is dropped. A file that cannot be decoded is an ``InputError`` whose text
    is the reason.

    Args:
        data: The bytes of the file.
        image_size: Height and width to resize to (bicubic, antialiased); None
            leaves the size as it is.
        max_pixels: Larger images are refused before anything is decoded.

    Returns:
        The image as RGB.

    Example:
        >>> decode_image(b"P5 2 1 255 \x00\xff")[0]
        tensor([[  0, 255]], dtype=torch.uint8)
    """
    with _quiet():
        image = _decode(data, max_pixels=max_pixels)
        if image_size is not None:
            image = _resize(image, image_size)
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def image_size_of(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return height and width as ``decode_image`` would, from the header alone.

    A file without a readable header is an ``InputError`` whose text is the reason.

    Args:
        data: The bytes of the file.
        max_pixels: Larger images are refused.

    Returns:
        Height and width, after any rotation.
    """
    with _quiet():
        image = _open(data, max_pixels=max_pixels)
        width, height = image.size
        try:
            turned = not _MAY_ROTATE.isdisjoint(image.info) and (
                image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            )
        except Exception:  # as below: whatever a plugin meets in hostile metadata
            turned = False
    return (width, height) if turned else (height, width)


def decode_records(
    records: Iterable[Record],
    *,
    image_size: tuple[int, int],
    class_names: tuple[str, ...],
    pool: ThreadPoolExecutor,
    max_pixels: int = MAX_PIXELS,
) -> tuple[ImageData | None, tuple[Unreadable, ...]]:
    """Decode rows in order, a few at a time.

    Args:
        records: The rows; taken from their iterator as they are decoded.
        image_size: Height and width to resize to.
        class_names: Names by class index, empty without labels.
        pool: Threads that decode: PIL leaves the interpreter while it does.
        max_pixels: Larger images are refused before anything is decoded.

    Returns:
        The images that could be read, None if there are none, and the others.
    """
    done: list[tuple[NDArray[np.uint8], list[Record], list[Unreadable]]] = []
    running: deque[Future[tuple[NDArray[np.uint8], list[Record], list[Unreadable]]]]
    running = deque()
    with _quiet():
        for part in _parts(records):
            running.append(pool.submit(_decode_part, part, image_size, max_pixels))
            if len(running) > 4:  # bounds what waits undecoded in memory
                done.append(running.popleft().result())
        done.extend(future.result() for future in running)
    unreadable = tuple(u for _, _, found in done for u in found)
    read = [record for _, found, _ in done for record in found]
    if not read:
        return None, unreadable
    images = torch.from_numpy(np.concatenate([pixels for pixels, _, _ in done]))
    labels = torch.tensor([record.label for record in read])
    ids = tuple(record.id for record in read)
    data = ImageData(images=images, labels=labels, ids=ids, class_names=class_names)
    return data, unreadable


def _parts(records: Iterable[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    size = 0
    for record in records:
        part.append(record)
        size += len(record.data or b"")
        if len(part) == 32 or size > 8 << 20:
            yield part
            part, size = [], 0
    if part:
        yield part


def _decode_part(
    records: Sequence[Record], image_size: tuple[int, int], max_pixels: int
) -> tuple[NDArray[np.uint8], list[Record], list[Unreadable]]:
    pixels: list[bytes] = []
    read: list[Record] = []
    unreadable: list[Unreadable] = []
    max_bytes = largest_file(max_pixels)
    for record in records:
        try:
            image = _decode(record.read(max_bytes=max_bytes), max_pixels=max_pixels)
            pixels.append(_resize(image, image_size).tobytes())
            # Without the file: a block of large ones would not fit into memory.
            read.append(replace(record, data=None))
        except InputError as error:
            unreadable.append(Unreadable(id=record.id, reason=str(error)))
    array = np.frombuffer(b"".join(pixels), dtype=np.uint8)
    array = array.reshape(-1, *image_size, 3).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array), read, unreadable


def _decode(data: bytes, *, max_pixels: int) -> Image.Image:
    image = _open(data, max_pixels=max_pixels)
    try:
        image.load()
        if not _MAY_ROTATE.isdisjoint(image.info):
            image = _upright(image)
        return _rgb(image)
    except InputError:
        raise
    except Exception as error:  # PIL raises whatever its plugins meet in hostile bytes
        raise InputError(_reason(error)) from error


def _open(data: bytes, *, max_pixels: int) -> Image.Image:
    if not data:
        raise InputError("an empty file")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC):
            raise InputError(_NO_PIXELS) from error
        kinds = ", ".join(FORMATS)
        raise InputError(f"not an image of a kind that is read ({kinds})") from error
    except Exception as error:  # PIL raises whatever its plugins meet in hostile bytes
        raise InputError(_reason(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        size = f"{width} x {height}; at most {max_pixels:,}"
        raise InputError(f"too many pixels ({size})")
    return image


def _reason(error: Exception) -> str:
    text = str(error)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated: the file ends too early"
    return f"damaged ({text or type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above; an image with broken metadata is shown as it lies
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert(
            "RGB"
        )
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would warn, and lose nothing
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGB")


def _eight_bits(deep: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    # Whole numbers are 16-bit (0..65535), or 31-bit where any is larger. Floats are in
    # [0, 1], or in the smallest of the ranges 0..255 and 0..65535 that holds them.
    low, high = float(deep.min()), float(deep.max())
    if not np.isfinite([low, high]).all():
        raise InputError("it holds NaN or infinite values")
    scales = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0, 2.0**31 - 1)
    for scale in scales:
        if high <= scale:
            found = np.empty(deep.shape, np.uint8)
            for row, line in enumerate(deep):  # whole, it would need 30 bytes a pixel
                values = line.astype(np.float64).clip(min=0) * (255 / scale)
                found[row] = np.rint(values)
            return found
    raise InputError(f"values up to {high:.3g}, a scale that is not known")


def _resize(image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    height, width = image_size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)


_quiet_lock = threading.Lock()
_quiet_users: list[warnings.catch_warnings[None]] = []


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PIL's warnings on odd files; the reasons say what matters.

    The filters of ``warnings`` belong to the whole process, so of blocks that run in
    several threads at once only the first sets them and only the last restores them.
    """
    with _quiet_lock:
        if not _quiet_users:
            guard = warnings.catch_warnings()
            guard.__enter__()
            warnings.simplefilter("ignore")
            _quiet_users.append(guard)
        else:
            _quiet_users.append(_quiet_users[0])
    try:
        yield
    finally:
        with _quiet_lock:
            guard = _quiet_users.pop()
            if not _quiet_users:
                guard.__exit__(None, None, None)
