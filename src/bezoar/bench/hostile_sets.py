"""Sets that somebody made to do harm are read, and written again."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

from bezoar.bench import hostile
from bezoar.data import open_pairs, open_source, write_source
from bezoar.errors import BezoarError

SIZE = (8, 8)
MAX_PIXELS = 4_000_000


def images(chance: random.Random, folder: Path) -> None:
    """Read a folder of images that are none, and write it again.

    Args:
        chance: Where they come from.
        folder: An empty folder.
    """
    for number in range(chance.randint(1, 4)):
        path = folder / "set" / chance.choice("ab") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hostile.image(chance))
    if chance.random() < 0.3:
        (folder / "set" / "a").mkdir(exist_ok=True)
        (folder / "set" / "a" / "link.png").symlink_to("/etc/passwd")
    _read(folder / "set", folder)


def tars(chance: random.Random, folder: Path) -> None:
    """Read and write a tar.

    Args:
        chance: Where it comes from.
        folder: An empty folder.
    """
    hostile.tar(chance, folder / "set.tar")
    _read(folder / "set.tar", folder)


def tables(chance: random.Random, folder: Path) -> None:
    """Read and write a parquet file.

    Args:
        chance: Where it comes from.
        folder: An empty folder.
    """
    hostile.parquet(chance, folder / "set.parquet")
    _read(folder / "set.parquet", folder)


def caption_files(chance: random.Random, folder: Path) -> None:
    """Read a table of captions.

    Args:
        chance: Where it comes from.
        folder: An empty folder.
    """
    (folder / "set").mkdir()
    (folder / "set" / "1.png").write_bytes(hostile.image(chance))
    rows = [f'"{hostile.name(chance)}",{hostile.name(chance)}' for _ in range(3)]
    head = chance.choice(("filepath,title", "filepath\ttitle", "image,caption,label"))
    text = "\n".join([head, "1.png,a cat", *rows])
    path = folder / "set" / "pairs.csv"
    content = text.encode(errors="surrogatepass")
    path.write_bytes(
        hostile.mutated(content, chance) if chance.random() < 0.3 else content
    )
    with suppress(BezoarError):
        open_pairs(path).read(image_size=SIZE, limit=8)


def _read(path: Path, folder: Path) -> None:
    with suppress(BezoarError):
        source = open_source(path, max_pixels=MAX_PIXELS)
        data, unreadable = source.read(image_size=SIZE, limit=64)
        bad = {u.id for u in unreadable}
        assert not bad & set(data.ids)
        write_source(source, folder / "new" / path.name, keep=lambda i: i not in bad)
    with suppress(BezoarError):
        open_pairs(path).read(image_size=SIZE, limit=64)
