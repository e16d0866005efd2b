"""Every kind of image file to 8-bit RGB, and a plain reason where none comes."""

import contextlib
import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bezoar.data import decode_image
from bezoar.data.decode import image_size_of
from bezoar.errors import InputError

RAMP = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes, **options: Any) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = decode_image(data, **options).permute(1, 2, 0).numpy()
    return array


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_the_pixels_that_were_saved(kind: str) -> None:
    assert (pixels(saved(Image.fromarray(RAMP), kind)) == RAMP).all()
    lossless = saved(Image.fromarray(RAMP), "WEBP", lossless=True)
    assert (pixels(lossless) == RAMP).all()


# an entry about the orientation that breaks off
BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"

# what each value of the tag means, written out with numpy alone
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_rotation_in_the_metadata_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(RAMP), kind, exif=exif, **options)
    expected = TURNS[orientation](RAMP)
    assert (pixels(data) == expected).all()
    assert image_size_of(data) == expected.shape[:2]


def test_a_jpeg_is_turned_and_broken_metadata_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.new("RGB", (40, 20), (200, 30, 30))
    assert image_size_of(saved(photo, "JPEG", exif=exif)) == (40, 20)
    assert pixels(saved(photo, "JPEG", exif=exif)).shape == (40, 20, 3)
    broken = saved(
        photo, "JPEG", exif=BROKEN_EXIF
    )  # PIL warns, and warnings are errors
    assert pixels(broken).shape == (20, 40, 3)


DEEP = np.array([[0, 128, 257, 32768, 65278, 65535]], dtype=np.uint16)
DEEP_EXPECTED = [0, 0, 1, 128, 254, 255]  # value / 257, rounded


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(DEEP)
    assert grey.convert("L").getpixel((3, 0)) == 255  # what PIL alone would do
    for data in (
        saved(grey),
        saved(grey, "TIFF"),
        saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
        b"P5 6 1 65535\n" + DEEP.astype(">u2").tobytes(),
    ):
        assert pixels(data)[0, :, 0].tolist() == DEEP_EXPECTED
        assert (pixels(data)[..., :1] == pixels(data)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-3.0, 1.5, 255.0], [0, 2, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
    ],
)
def test_floats_are_read_in_the_smallest_range_that_holds_them(
    values: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert pixels(saved(image, "TIFF"))[0, :, 0].tolist() == expected


def test_whole_numbers_of_31_bits_are_scaled() -> None:
    image = Image.fromarray(np.array([[0, 2**30, 2**31 - 1]], dtype=np.int32))
    assert pixels(saved(image, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_floats_without_a_scale_are_refused(value: float) -> None:
    image = Image.fromarray(np.array([[0, value]], dtype=np.float32))
    with pytest.raises(InputError, match=r"NaN or infinite|a scale that is not known"):
        decode_image(saved(image, "TIFF"))


def test_alpha_is_dropped_and_not_blended() -> None:
    clear = Image.new("RGBA", (2, 2), (10, 200, 30, 0))
    assert pixels(saved(clear))[0, 0].tolist() == [10, 200, 30]
    assert pixels(saved(Image.new("LA", (2, 2), (77, 0))))[0, 0].tolist() == [77] * 3


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_a_palette_gives_its_colours(transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    options: dict[str, Any] = {}
    if transparency is not None:
        options["transparency"] = transparency
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert pixels(saved(image, **options))[0].tolist() == expected


def test_grey_one_bit_and_cmyk_become_rgb() -> None:
    assert pixels(saved(Image.new("L", (2, 2), 90)))[1, 1].tolist() == [90] * 3
    assert pixels(saved(Image.new("1", (9, 2), 1)))[1, 8].tolist() == [255] * 3
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert pixels(saved(red, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    assert pixels(saved(red, "JPEG"))[0, 0] == pytest.approx([255, 0, 0], abs=3)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = saved(
            frames[0], kind, save_all=True, append_images=frames[1:], **options
        )
        assert pixels(data)[0, 0].tolist() == [255, 0, 0]


def test_resizing_averages_what_it_leaves_out() -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    small = decode_image(saved(board), image_size=(8, 16))
    assert small.shape == (3, 8, 16)
    assert small.float().sub(127.5).abs().max() <= 2  # points alone would be 0 or 255


GOOD_PNG = saved(Image.effect_noise((64, 64), 50).convert("RGB"))
GOOD_JPEG = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"this is a list of images, not an image", "not an image of a kind"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a kind"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "not an image",
    ),
    "half a jpeg": (GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated"),
    "half a png": (GOOD_PNG[: len(GOOD_PNG) // 2], "truncated"),
    "header of a jpeg": (b"\xff\xd8\xff" + bytes(40), "damaged"),
    "wrong bytes": (GOOD_PNG[:60] + bytes(len(GOOD_PNG) - 60), "damaged"),
    "huge": (png_header(60_000, 60_000), "too many pixels"),
    "large": (png_header(9_000, 9_000), "too many pixels .9000 x 9000"),
    "no width": (png_header(0, 5), "without pixels"),
    "webp": (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20), "damaged"),
    "huge ppm": (b"P6 60000 60000 255\n", "too many pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_says_why(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(InputError, match=reason):
        decode_image(data)


def test_the_bound_on_pixels_is_the_callers() -> None:
    assert pixels(GOOD_PNG, max_pixels=64 * 64).shape == (64, 64, 3)
    with pytest.raises(InputError, match=r"too many pixels \(64 x 64; at most 4,095"):
        decode_image(GOOD_PNG, max_pixels=64 * 64 - 1)
    with pytest.raises(InputError, match="too many pixels"):
        image_size_of(GOOD_PNG, max_pixels=64 * 64 - 1)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_raise_anything_else(seed: int) -> None:
    stream = np.random.default_rng(seed)
    start = Image.new("P", (30, 30))
    ImageDraw.Draw(start).ellipse((3, 3, 20, 20), fill=3)
    kind = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")[seed % 6]
    data = bytearray(saved(start.convert("P" if kind == "GIF" else "RGB"), kind))
    for place in stream.integers(0, len(data), 8):
        data[place] = stream.integers(0, 256)
    with contextlib.suppress(InputError):  # anything else would stop a run
        assert decode_image(bytes(data), image_size=(8, 8)).dtype == torch.uint8


def test_settings_of_the_process_stay_as_they_were() -> None:
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    odd = saved(Image.new("RGB", (4, 4)), "JPEG", exif=BROKEN_EXIF)
    large = png_header(10_000, 9_500)  # where PIL begins to warn of bombs
    stop = threading.Event()

    def decode_for_ever() -> None:
        while not stop.is_set():
            assert image_size_of(large, max_pixels=10**8) == (9_500, 10_000)

    other = threading.Thread(target=decode_for_ever)
    other.start()
    try:
        for _ in range(20):
            assert decode_image(odd).shape == (3, 4, 4)
    finally:
        stop.set()
        other.join()
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == (filters, limit)
