"""Sets written back in their format, whole or not at all."""

import io
import os
import signal
import stat
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from bezoar.data import (
    ImageData,
    noise_images,
    open_source,
    write,
    write_images,
    write_source,
)
from bezoar.data.choice import encode_png
from bezoar.errors import EmptyError, InputError, StorageError

DATA = noise_images(7)
NEW = torch.full((3, 8, 8), 9, dtype=torch.uint8)
FORMATS = ("class_folders", "parquet", "webdataset")


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = ((m.name, tar.extractfile(m)) for m in tar)
        return {name: file.read() for name, file in found if file is not None}


def folder_set(root: Path) -> Path:
    contents = {"cat/1.jpg": jpeg(1), "cat/deep/2.jpg": jpeg(2), "dog/3.jpeg": jpeg(3)}
    contents |= {"dog/4.png": encode_png(NEW), "dog/bad.jpg": b"no image at all"}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "eel").mkdir()
    return root


def test_a_folder_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source = open_source(folder_set(tmp_path / "in"))
    before = files(tmp_path / "in")
    assert write_source(source, tmp_path / "out") == 5
    assert files(tmp_path / "out") == files(tmp_path / "in") == before
    assert open_source(tmp_path / "out").class_names == ("cat", "dog", "eel")


def test_a_class_that_lost_its_images_keeps_its_number(tmp_path: Path) -> None:
    source = open_source(folder_set(tmp_path / "in"))
    keep = ["dog/3.jpeg", "dog/bad.jpg"]
    assert write_source(source, tmp_path / "out", keep=keep) == 2
    assert list(files(tmp_path / "out")) == keep
    again = open_source(tmp_path / "out")
    assert again.read()[0].labels.tolist() == [1]
    assert write_source(source, tmp_path / "2", keep=lambda i: "cat" in i) == 2


def test_replaced_images_are_lossless_and_never_collide(tmp_path: Path) -> None:
    root = folder_set(tmp_path / "in")
    (root / "cat" / "1.png").write_bytes(encode_png(DATA.images[0]))
    source = open_source(root)
    names = ("cat/1.jpg", "cat/deep/2.jpg", "dog/4.png")
    assert write_source(source, tmp_path / "out", images=dict.fromkeys(names, NEW)) == 6
    written = files(tmp_path / "out")
    assert sorted(written) == [
        "cat/1.jpg.png",
        "cat/1.png",
        "cat/deep/2.png",
        "dog/3.jpeg",
        "dog/4.png",
        "dog/bad.jpg",
    ]
    assert written["cat/1.png"] == (root / "cat" / "1.png").read_bytes()
    data, _ = open_source(tmp_path / "out").read()
    by_id = dict(zip(data.ids, data.images, strict=True))
    for name in ("cat/1.jpg.png", "cat/deep/2.png", "dog/4.png"):
        assert by_id[name].equal(NEW)


def test_links_that_leave_are_not_copied(tmp_path: Path) -> None:
    root = folder_set(tmp_path / "in")
    (tmp_path / "secret.png").write_bytes(encode_png(NEW))
    (root / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "cat" / "near.jpg").symlink_to("1.jpg")
    keep = ["cat/link.png", "cat/near.jpg"]
    assert write_source(open_source(root), tmp_path / "out", keep=keep) == 1
    assert files(tmp_path / "out") == {"cat/near.jpg": jpeg(1)}
    assert not (tmp_path / "out" / "cat" / "near.jpg").is_symlink()


def parquet_set(path: Path) -> Path:
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "note": datasets.Value("string"),
        }
    )
    table = pa.table(
        {
            "id": range(6),
            "image": [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(5)]
            + [{"bytes": None, "path": "/etc/passwd"}],
            "label": [0, 1, 1, 0, None, 0],
            "note": ["a", None, "c", "d", "e", "f"],
        },
        schema=features.arrow_schema,
    )
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


def test_parquet_keeps_columns_schema_and_bytes(tmp_path: Path) -> None:
    path = parquet_set(tmp_path / "in" / "a.parquet")
    source = open_source(tmp_path / "in")
    assert write_source(source, tmp_path / "out") == 5  # a mere path is no image
    old, new = pq.read_table(path), pq.read_table(tmp_path / "out" / "a.parquet")
    assert new.schema.equals(old.schema, check_metadata=True)
    assert new.equals(old.slice(0, 5))
    images = {"a.parquet#2": NEW, "a.parquet#3": NEW}
    written = write_source(
        source, tmp_path / "b.parquet", keep=lambda i: i != "a.parquet#2", images=images
    )
    rows = pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert written == len(rows) == 4
    assert rows[:2] == old.slice(0, 2).to_pylist()
    assert rows[2] == old.slice(3, 1).to_pylist()[0] | {
        "image": {"bytes": encode_png(NEW), "path": "3.png"}
    }
    assert datasets.Features.from_arrow_schema(new.schema)["label"].names == [
        "cat",
        "dog",
    ]


def test_plain_bytes_in_parquet_can_be_replaced(tmp_path: Path) -> None:
    table = pa.table({"image": [jpeg(0), jpeg(1)], "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    write_source(source, tmp_path / "out", images={"a.parquet#1": NEW})
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert [row["image"] for row in rows] == [jpeg(0), encode_png(NEW)]


def test_tars_keep_their_members(tmp_path: Path) -> None:
    contents = {"1.jpg": jpeg(1), "1.cls": b"0", "1.txt": b"words", "README": b"hello"}
    contents |= {"./2.jpg": jpeg(2), "./2.json": b'{"label": 1}', "3.jpg": b"no image"}
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        for name, content in contents.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.mode = len(content), 1234, 0o4640
            header.uname = "somebody"
            tar.addfile(header, io.BytesIO(content))
        link = tarfile.TarInfo("4.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    source = open_source(tmp_path / "in")
    assert write_source(source, tmp_path / "out") == 3
    assert members(tmp_path / "out" / "a.tar") == contents
    with tarfile.open(tmp_path / "out" / "a.tar") as tar:
        first = tar.getmember("1.jpg")
        assert (first.mtime, first.mode, first.uname) == (1234, 0o640, "")
    keep, images = ["a.tar#1", "a.tar#3"], {"a.tar#1": NEW}
    assert write_source(source, tmp_path / "b.tar", keep=keep, images=images) == 2
    assert members(tmp_path / "b.tar") == {
        "1.png": encode_png(NEW),
        "1.cls": b"0",
        "1.txt": b"words",
        "README": b"hello",
        "3.jpg": b"no image",
    }


@pytest.mark.parametrize(
    "name", ["../up.png", "/root.png", "a/../../b.png", "a\\b.png"]
)
def test_names_that_leave_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        header = tarfile.TarInfo(name)
        header.size = len(encode_png(NEW))
        tar.addfile(header, io.BytesIO(encode_png(NEW)))
    source = open_source(tmp_path / "a.tar")
    with pytest.raises(InputError, match=r"expected names inside the archive 'a.tar'"):
        write_source(source, tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("split", [None, "test"])
def test_a_saved_set_is_saved_again(
    tmp_path: Path,
    split: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bars = sys.modules["datasets.utils.tqdm"]  # as a user has it, with bars
    monkeypatch.setattr(bars, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(bars, "_hf_datasets_progress_bars_disabled", False)
    columns = {
        "image": [{"bytes": jpeg(i), "path": None} for i in range(5)],
        "label": [0, 1, 1, 0, 1],
        "note": list("abcde"),
    }
    kinds = {"image": datasets.Image(), "note": datasets.Value("string")}
    kinds["label"] = datasets.ClassLabel(names=["cat", "dog"])
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    whole = data if split is None else datasets.DatasetDict({split: data})
    whole.save_to_disk(str(tmp_path / "in"))
    assert "Saving" in capsys.readouterr().err
    source = open_source(tmp_path / "in", split=split or "train")
    name = split or "train"
    keep = [f"{name}#{i}" for i in (0, 2, 4)]
    images = {f"{name}#2": NEW}
    assert write_source(source, tmp_path / "out", keep=keep, images=images) == 3
    assert capsys.readouterr() == ("", "")  # no progress bars
    assert not datasets.utils.are_progress_bars_disabled()
    again = datasets.load_from_disk(str(tmp_path / "out"))
    again = again if split is None else again[split]
    assert again.features == data.features
    rows = again.cast_column("image", datasets.Image(decode=False)).to_list()
    assert [row["note"] for row in rows] == ["a", "c", "e"]
    assert [row["image"]["bytes"] for row in rows] == [
        jpeg(0),
        encode_png(NEW),
        jpeg(4),
    ]


class FakeStream:
    """Stands for what the Hub returns, with what is used of it."""

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    info = datasets.DatasetInfo()

    def cast_column(self, _: str, feature: datasets.Image) -> list[dict[str, object]]:
        assert not feature.decode
        files = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(3)]
        return [{"image": f, "label": i % 2} for i, f in enumerate(files)]


def test_a_set_from_the_hub_becomes_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: FakeStream())
    source = open_source("owner/name")
    images = {"train#1": NEW}
    assert write_source(source, tmp_path / "out", images=images) == 3
    again = open_source(tmp_path / "out")
    assert again.class_names == ("a", "b")
    assert again.read()[0].images[1].equal(NEW)
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert rows[2]["image"] == {"bytes": jpeg(2), "path": "2.jpg"}


def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = folder_set(tmp_path / "in")
    source = open_source(root)
    before = files(tmp_path)
    (tmp_path / "link").symlink_to(root / "eel")
    (tmp_path / "dangling").symlink_to("nothing")
    for place in (root, root / "eel", root / "new", tmp_path / "link" / "x"):
        with pytest.raises(InputError, match="outside the set that is read"):
            write_source(source, place)
    for place in (tmp_path, root / "cat" / "1.jpg", tmp_path / "dangling"):
        with pytest.raises(InputError, match=r"new or empty place|outside the set"):
            write_source(source, place)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert write_source(source, tmp_path / "empty") == 5
    pattern = open_source(
        parquet_set(tmp_path / "p" / "a.parquet").parent / "*.parquet"
    )
    with pytest.raises(InputError, match="outside the set that is read"):
        write_source(pattern, tmp_path / "p" / "a.parquet")
    assert write_source(pattern, tmp_path / "p" / "new.parquet") == 5


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failed_write_leaves_nothing(tmp_path: Path, kind: Any) -> None:
    write_images(DATA, tmp_path / "in", format=kind)
    source = open_source(tmp_path / "in")
    last = source.read()[0].ids[-1]

    def fail_at_the_end(id_: str) -> Tensor | None:
        if id_ == last:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        write_source(source, tmp_path / "out", images=fail_at_the_end)
    with pytest.raises(EmptyError, match="to keep, got none; nothing was written"):
        write_source(source, tmp_path / "out", keep=[])
    with pytest.raises(InputError, match="got 'nobody' and 0 more that are not in it"):
        write_source(source, tmp_path / "out", keep=[last, "nobody"])
    with pytest.raises(InputError, match="expected a uint8 image"):
        write_source(source, tmp_path / "out", images={last: NEW.float()})
    assert os.listdir(tmp_path) == ["in"]


def test_a_killed_write_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    write_images(DATA, tmp_path / "in", format="class_folders")
    source = open_source(tmp_path / "in")
    heard, told = os.pipe()

    def stop_in_the_middle(id_: str) -> Tensor | None:
        if id_ == source_ids[4]:
            os.write(told, b"!")
            time.sleep(60)
        return None

    source_ids = [record.id for record in source.records()]
    child = os.fork()
    if child == 0:  # the process that is killed
        try:
            write_source(source, tmp_path / "out", images=stop_in_the_middle)
        finally:
            os._exit(1)
    assert os.read(heard, 1) == b"!"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(heard)
    os.close(told)
    assert not (tmp_path / "out").exists()
    (left,) = (p for p in tmp_path.iterdir() if p.name != "in")
    assert left.name.startswith(".out.")
    assert len(files(left)) == 4
    assert write_source(source, tmp_path / "out") == 7


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(folder_set(tmp_path / "in"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"expected .*, got .*; choose another"):
        write_source(source, tmp_path / "file" / "out")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write", full)
    with pytest.raises(StorageError, match="No space left on device; choose another"):
        write_source(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["file", "in"]


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_source(open_source(folder_set(tmp_path / "in")), tmp_path / "out")
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out").rglob("*.*")}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert modes == {0o644}


@pytest.mark.parametrize("kind", FORMATS)
def test_images_in_memory_come_back_with_their_ids(tmp_path: Path, kind: Any) -> None:
    write_images(DATA, tmp_path / "a", format=kind)
    first, _ = open_source(tmp_path / "a").read()
    write_images(first, tmp_path / "b", format=kind)
    again, _ = open_source(tmp_path / "b").read()
    assert again.ids == first.ids
    assert again.images.equal(first.images)
    assert again.labels.equal(first.labels)


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_shards_come_back(tmp_path: Path, kind: Any) -> None:
    suffix = {"parquet": ".parquet", "webdataset": ".tar"}[kind]
    ids = tuple(f"{n}{suffix}#{i}" for n, k in (("x", 4), ("y/z", 3)) for i in range(k))
    data = ImageData(
        images=DATA.images, labels=DATA.labels, ids=ids, class_names=("0", "1")
    )
    write_images(data, tmp_path / "a", format=kind)
    again, _ = open_source(tmp_path / "a").read()
    assert again.ids == ids
    write_images(data, tmp_path / f"one{suffix}", format=kind)
    assert len(open_source(tmp_path / f"one{suffix}").read()[0]) == 7


HOSTILE = ("../up", "/root", "a/b.jpg", "a/b.png", "", "a/b.png/c", "x\0y")


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_that_are_no_names_become_numbers(tmp_path: Path, kind: Any) -> None:
    data = ImageData(
        images=DATA.images, labels=DATA.labels, ids=HOSTILE, class_names=("b", "a/..")
    )
    write_images(data, tmp_path / "out", format=kind)
    again, _ = open_source(tmp_path / "out").read()
    order = sorted(range(7), key=lambda i: again.images[i].numpy().tobytes())
    expected = sorted(range(7), key=lambda i: DATA.images[i].numpy().tobytes())
    assert again.images[order].equal(DATA.images[expected])
    assert again.labels[order].equal(DATA.labels[expected])
    assert os.listdir(tmp_path) == ["out"]
    if kind == "class_folders":
        assert again.class_names == ("0_b", "1")  # names that sort as the labels do
        assert "0_b/a/b.png" in again.ids


def test_formats_that_cannot_hold_the_labels_are_refused(tmp_path: Path) -> None:
    bare = ImageData(
        images=DATA.images,
        labels=torch.full((7,), -1),
        ids=tuple(f"{i}" for i in range(7)),
        class_names=(),
    )
    with pytest.raises(InputError, match="got images without; write a flat_folder"):
        write_images(bare, tmp_path / "a", format="class_folders")
    with pytest.raises(InputError, match="got 2 classes; write class_folders"):
        write_images(DATA, tmp_path / "a", format="flat_folder")
    formats: tuple[Any, ...] = ("flat_folder", "parquet", "webdataset")
    for kind in formats:
        write_images(bare, tmp_path / kind, format=kind)
        again, _ = open_source(tmp_path / kind).read()
        assert again.class_names == ()
        assert again.images.equal(bare.images)
