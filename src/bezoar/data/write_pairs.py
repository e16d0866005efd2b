"""Pairs to disk: PNG files, and a table ``filepath,title`` beside them."""

from __future__ import annotations

import csv
from pathlib import Path

from bezoar.data.choice import encode_png
from bezoar.data.pairs import PairData
from bezoar.errors import StorageError
from bezoar.files import atomic

TABLE = "captions.csv"


def write_pairs(data: PairData, folder: Path) -> None:
    """Write pairs as PNG files and a table, which ``open_pairs`` reads.

    Without loss, whatever the images were: a trigger that is encoded as JPEG would no
    longer be the one that is shown at test time.

    Args:
        data: The pairs; classes go into a column "label".
        folder: A folder that is not there yet, or empty.

    Raises:
        StorageError: If the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(
            f"expected an empty folder {str(folder)!r}, got one that holds files; "
            "choose another, or empty it"
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{i:08d}.png" for i in range(len(data))]
    for name, image in zip(names, data.images, strict=True):
        (folder / name).write_bytes(encode_png(image))
    heads = ["filepath", "title", "id", *(["label"] if data.is_labelled else [])]
    with (
        atomic(folder / TABLE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(heads)
        for row, (name, text, id_) in enumerate(
            zip(names, data.captions, data.ids, strict=True)
        ):
            own = int(data.labels[row])
            label = [data.class_names[own]] if data.is_labelled else []
            table.writerow([name, text, id_, *label])
