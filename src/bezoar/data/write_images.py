"""Images in memory written as a new set."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from bezoar.data.choice import encode_png
from bezoar.data.images import ImageData
from bezoar.data.records import IMAGE_SUFFIXES, is_safe_name
from bezoar.data.staging import staged
from bezoar.errors import InputError

NewFormat = Literal["class_folders", "flat_folder", "parquet", "webdataset"]

_ROWS = 1024


def write_images(data: ImageData, out: Path, *, format: NewFormat) -> None:
    """Write images as a new set, as PNG without loss.

    Ids become names where they can: paths below a folder, keys of an archive. Others
    are replaced by numbers. Ids like "shard.tar#key" or "shard.parquet#0" bring their
    shards back.

    Args:
        data: The images.
        out: A new or empty folder; for parquet and webdataset also a new file with
            the suffix ``.parquet`` or ``.tar``.
        format: "class_folders", "flat_folder" (without labels), "parquet" or
            "webdataset".

    Raises:
        InputError: If ``out`` is taken, or the format cannot hold the labels.
    """
    out = Path(out)
    with staged(out) as place:
        match format:
            case "class_folders":
                _write_folders(data, place)
            case "flat_folder":
                _write_flat(data, place)
            case "parquet":
                _write_parquet(data, place, is_file=out.suffix == ".parquet")
            case "webdataset":
                _write_tars(data, place, is_file=out.suffix == ".tar")
            case _:
                raise InputError(
                    f"expected class_folders, flat_folder, parquet or webdataset, got "
                    f"{format!r}; choose one of these"
                )


def _write_folders(data: ImageData, place: Path) -> None:
    if not data.is_labelled:
        raise InputError(
            "expected labels to write class folders, got images without; write a "
            "flat_folder"
        )
    folders = _folder_names(data.class_names)
    for folder in folders:  # a class without images keeps its number
        (place / folder).mkdir(parents=True)
    stems: list[str | None] = []
    for id_, label in zip(data.ids, data.labels.tolist(), strict=True):
        stem = _stem(id_.removeprefix(f"{data.class_names[label]}/"))
        stems.append(stem and f"{folders[label]}/{stem}")
    spare = [folders[label] + "/" for label in data.labels.tolist()]
    _write_files(data, place, _unique(stems, spare))


def _write_flat(data: ImageData, place: Path) -> None:
    if data.is_labelled:
        raise InputError(
            "expected images without labels to write a flat folder, got "
            f"{len(data.class_names)} classes; write class_folders"
        )
    stems = [None if "/" in id_ else _stem(id_) for id_ in data.ids]
    place.mkdir()
    _write_files(data, place, _unique(stems, [""] * len(data)))


def _folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return folder names that sort as the classes do: their order is the labels'."""
    are_safe = [is_safe_name(n) and "/" not in n for n in class_names]
    are_shown = not any(n.startswith(".") for n in class_names)
    if all(are_safe) and are_shown and sorted(set(class_names)) == list(class_names):
        return tuple(class_names)
    digits = len(str(len(class_names) - 1))
    return tuple(
        f"{i:0{digits}d}" + (f"_{name}" if is_safe else "")
        for i, (name, is_safe) in enumerate(zip(class_names, are_safe, strict=True))
    )


def _stem(id_: str) -> str | None:
    """Return an id as a file name without the suffix of an image, if it can be one."""
    stem, suffix = posixpath.splitext(id_)
    name = stem if suffix.lower() in IMAGE_SUFFIXES else id_
    folders = name.split("/")[:-1]
    is_safe = is_safe_name(name + ".png") and stem and stem[-1] != "/"
    return name if is_safe and not any(f.endswith(".png") for f in folders) else None


def _unique(stems: Sequence[str | None], spare: Sequence[str]) -> list[str]:
    """Return every stem once; what is missing or taken becomes a number."""
    wanted = set(stems)
    taken: dict[str, None] = {}  # in order
    for index, (stem, prefix) in enumerate(zip(stems, spare, strict=True)):
        name = stem
        for attempt in count():
            if name is not None and name not in taken:
                break
            number = f"{prefix}{index:08d}" + f"_{attempt}" * (attempt > 0)
            name = None if number in wanted else number
        taken[str(name)] = None
    return list(taken)


def _write_files(data: ImageData, place: Path, stems: Sequence[str]) -> None:
    for image, stem in zip(data.images, stems, strict=True):
        path = place / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))


def _shards(ids: Sequence[str], suffix: str) -> list[tuple[str, list[str]]] | None:
    """Return ids like "shard.tar#key" by shard; None unless all are such, in order."""
    parts: list[tuple[str, list[str]]] = []
    for id_ in ids:
        stem, mark, rest = id_.partition(f"{suffix}#")
        shard = stem + suffix
        if not mark or not is_safe_name(shard):
            return None
        if not parts or parts[-1][0] != shard:
            parts.append((shard, []))
        parts[-1][1].append(rest)
    return parts if len({shard for shard, _ in parts}) == len(parts) else None


def _write_parquet(data: ImageData, place: Path, *, is_file: bool) -> None:
    from datasets import ClassLabel, Features, Image  # its import takes a second

    columns = {"image": Image()}
    if data.is_labelled:
        columns["label"] = ClassLabel(names=list(data.class_names))
    schema = Features(columns).arrow_schema
    shards = _shards(data.ids, ".parquet")
    if shards is None or any(
        rows != [str(i) for i in range(len(rows))] for _, rows in shards
    ):
        shards = [("images.parquet", list(data.ids))]
    if is_file:
        shards = [("", list(data.ids))]
    first = 0
    for shard, rows in shards:
        (place / shard).parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(place / shard, schema, use_dictionary=False) as writer:
            for start in range(first, first + len(rows), _ROWS):
                part = slice(start, min(start + _ROWS, first + len(rows)))
                writer.write_batch(_table_part(data, part, schema))
        first += len(rows)


def _table_part(data: ImageData, part: slice, schema: pa.Schema) -> pa.RecordBatch:
    files = [
        {"bytes": encode_png(image), "path": id_}
        for image, id_ in zip(data.images[part], data.ids[part], strict=True)
    ]
    columns = [files, data.labels[part].tolist()] if data.is_labelled else [files]
    arrays = [
        pa.array(c, type=field.type) for c, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write_tars(data: ImageData, place: Path, *, is_file: bool) -> None:
    shards = _shards(data.ids, ".tar") or [("images.tar", list(data.ids))]
    if is_file:
        shards = [("", [key for _, keys in shards for key in keys])]
    first = 0
    for shard, keys in shards:
        (place / shard).parent.mkdir(parents=True, exist_ok=True)
        part = slice(first, first + len(keys))
        stems = [_stem(key) for key in keys]
        clear = [None if s is None or "." in s.rpartition("/")[2] else s for s in stems]
        with tarfile.open(place / shard, "w") as tar:
            names = _unique(clear, [""] * len(keys))
            for image, label, name in zip(
                data.images[part], data.labels[part].tolist(), names, strict=True
            ):
                _add(tar, f"{name}.png", encode_png(image))
                if data.is_labelled:
                    _add(tar, f"{name}.cls", str(label).encode())
        first += len(keys)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, BytesIO(content))
