"""Files that somebody made to do harm: bombs, lies, programs and markup.

Each function takes its chance from a ``random.Random``, so that a seed makes the same
file again, and a property-based test can make it smaller.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MARK = "EXECUTED"  # the file that a program in a file would make
BIDI = "\u202e\u2066\u2069\u200f\u061c"
_TEXTS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    '"onmouseover="alert(1)',
    "javascript:alert(1)",
    "=HYPERLINK(1)",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\con",
    "a\0b",
    "\x1b[31mred\x1b[0m",
    "\r\nSet-Cookie: a",
    "\ud800",
    "x" * 300,
    "&lt;b&gt;",
    "%n%s%x",
    "$(touch EXECUTED)",
    "`touch EXECUTED`",
    "-rf",
    "",
    ".",
    "..",
)


class Bomb:
    """A program in a pickle: it makes a file named ``MARK`` where it is opened."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        """Return what opening it does."""
        return os.system, (f"touch {MARK}",)


def name(chance: random.Random) -> str:
    """Return a name with markup, control characters, marks of direction or paths.

    Args:
        chance: Where it comes from.

    Returns:
        The name; it may be no Unicode.
    """
    parts = [chance.choice(_TEXTS) for _ in range(chance.randint(1, 3))]
    marks = [chance.choice(BIDI) for _ in range(chance.randint(0, 2))]
    letters = [chr(chance.randrange(1, 0x2FF)) for _ in range(chance.randint(0, 4))]
    pieces = parts + marks + letters
    chance.shuffle(pieces)
    return "".join(pieces)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return bytes of which some are others, gone, or there twice.

    Args:
        content: The bytes.
        chance: Says which.

    Returns:
        Other bytes.
    """
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(found) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            del found[place : place + chance.choice((1, 4, 64, 10**9))]
        elif kind == 1:
            found[place:place] = chance.randbytes(chance.choice((1, 4, 64)))
        elif kind == 2:
            found[place : place + 4] = chance.choice(_NUMBERS)
        elif kind == 3:
            found += found[:place]
        elif place < len(found):
            found[place] ^= 1 << chance.randrange(8)
    return bytes(found[: 1 << 20])


_NUMBERS = tuple(
    struct.pack(order + "I", value)
    for order in "<>"
    for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 60_000)
)


def image(chance: random.Random) -> bytes:
    """Return an image file that is damaged, or claims to be gigantic, or none at all.

    Args:
        chance: Where it comes from.

    Returns:
        The file.
    """
    kind = chance.randrange(6)
    if kind == 0:
        side = chance.choice((7999, 20_000, 65_000, 2**31 - 1))
        return _png(side, chance.choice((1, 3000, side)), depth=chance.choice((8, 16)))
    if kind == 1:
        return chance.choice(
            (b"", b"P5 99999 99999 255\n", b"P6 1 1 1\n", b"II*\0" * 9)
        )
    if kind == 2:
        return chance.randbytes(chance.randrange(200))
    mode = chance.choice(("RGB", "L", "P", "RGBA", "I;16", "1", "LA"))
    suffix = chance.choice(("PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG", "PPM"))
    file = io.BytesIO()
    picture = Image.new("I;16" if mode == "I;16" else mode, (9, 7))
    try:
        picture.save(file, suffix, exif=b"Exif\0\0II*\0" + chance.randbytes(40))
    except Exception:  # not every kind takes every mode, or such metadata
        file = io.BytesIO()
        Image.new("RGB", (9, 7)).save(file, "PNG")
    return mutated(file.getvalue(), chance) if kind < 5 else file.getvalue()


def _png(width: int, height: int, *, depth: int) -> bytes:
    # Few bytes that unpack to all the pixels that are claimed, up to 64 million.
    rows = min(height, 4000) * (1 + 3 * min(width, 8000) * depth // 8)
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0),
        b"zTXt" + b"a\0\0" + zlib.compress(bytes(1 << 22), 1),
        b"IDAT" + zlib.compress(bytes(min(rows, 1 << 23)), 1),
        b"IEND",
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in chunks
    )


def deep_json(chance: random.Random) -> bytes:
    """Return JSON that is deep, huge, repeated or no JSON.

    Args:
        chance: Where it comes from.

    Returns:
        The text.
    """
    depth = chance.choice((10, 1000, 100_000))
    number = "9" * chance.choice((10, 400, 5000))
    return chance.choice(
        (
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            f'{{"format": {number}}}'.encode(),
            f'{{"format": 1e{number}}}'.encode(),
            b'{"a": NaN, "a": Infinity}',
            b"\xff\xfe[",
            b"null",
            b"[]",
            b'"\\ud800"',
            json.dumps({name(chance): name(chance)}).encode(),
        )
    )


def tar(chance: random.Random, path: Path) -> None:
    """Write a tar of images with ``..``, links, devices, lies and damage.

    Args:
        chance: Where it comes from.
        path: The file.
    """
    kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(chance.randint(1, 5)):
            key = chance.choice((str(number), name(chance), "../" * 3 + "up"))
            for suffix in ("png", "cls", "json", "txt"):
                # A byte that is no UTF-8: a name in a tar cannot be half a pair.
                told = f"{key}.{suffix}"[-90:].replace("\ud800", "\udcff")
                member = tarfile.TarInfo(told.replace("\0", ""))
                member.type = chance.choice((tarfile.REGTYPE, chance.choice(kinds)))
                member.linkname = chance.choice(("/etc/passwd", "../../x", "1.png"))
                content = {"png": image, "json": deep_json}.get(
                    suffix, lambda c: name(c).encode(errors="surrogatepass")
                )(chance)
                member.size = len(content) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(content))
    content = file.getvalue()
    path.write_bytes(mutated(content, chance) if chance.random() < 0.5 else content)


def parquet(chance: random.Random, path: Path) -> None:
    """Write a parquet file with a schema that lies, bombs in columns, or damage.

    Args:
        chance: Where it comes from.
        path: The file.
    """
    rows = chance.randint(1, 4)
    images: list[object] = [image(chance) for _ in range(rows)]
    columns: dict[str, object] = {
        "image": [
            {"bytes": i, "path": name(chance).encode(errors="replace")} for i in images
        ]
        if chance.random() < 0.5
        else images,
        "label": [chance.choice((0, 1, -5, 2**40)) for _ in range(rows)],
    }
    told = chance.choice((_DEEP, _FOREIGN, deep_json(chance), None))
    schema = {} if told is None else {b"huggingface": told}
    table = pa.table(columns).replace_schema_metadata(schema)
    pq.write_table(table, path, compression=chance.choice(("zstd", "gzip", "none")))
    if chance.random() < 0.5:
        content = path.read_bytes()
        if chance.random() < 0.5:  # the footer alone, where the schema and counts are
            cut = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
            footer = mutated(content[cut:-8], chance)
            size = struct.pack("<I", len(footer))
            content = content[:cut] + footer + size + b"PAR1"
        else:
            content = mutated(content, chance)
        path.write_bytes(content)


_DEEP = b'{"info": {"features": ' + b"[" * 2000
_FOREIGN = b'{"info": {"features": {"label": {"_type": "os.system"}}}}'


def weights(chance: random.Random, path: Path) -> None:
    """Write weights whose header lies, or a pickle that is a program.

    Args:
        chance: Where it comes from.
        path: The file.
    """
    kind = chance.randrange(4)
    if kind == 0:
        path.write_bytes(pickle.dumps(chance.choice((Bomb(), {"fc.weight": Bomb()}))))
        return
    told = deep_json(chance) if kind == 1 else json.dumps(_header(chance)).encode()
    size = len(told) if kind != 3 else chance.choice((0, 2**40, 2**63, len(told) + 1))
    body = np.zeros(chance.choice((0, 64, 4096)), np.uint8).tobytes()
    path.write_bytes(struct.pack("<Q", size) + told + body)


def _header(chance: random.Random) -> dict[str, object]:
    def tensor() -> dict[str, object]:
        shape = [chance.choice((0, 1, 3, 7, 2**31, 2**62)) for _ in range(4)]
        shape = shape[: chance.randrange(5)]
        end = chance.choice((0, 64, 4096, 2**60, -1))
        kind = chance.choice(("F32", "F16", "BOOL", "F8_E4M3", "I64", "X9"))
        return {"dtype": kind, "shape": shape, "data_offsets": [0, end]}

    names = [
        *("conv1.weight", "layer4.0.conv1.weight", "fc.weight", "stage1.conv.weight"),
        *("stage4.conv.weight", "layer1.0.conv1.weight", name(chance)),
    ]
    picked = [n for n in names if chance.random() < 0.7]
    return {n: tensor() for n in picked}
