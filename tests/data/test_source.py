"""One set in every format, in blocks, with all that can go wrong in a folder."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from bezoar.data import (
    ImageData,
    ImageSource,
    decode,
    join,
    noise_images,
    open_source,
    write_images,
)
from bezoar.data.choice import encode_png
from bezoar.errors import BezoarError, EmptyError, InputError

CIFAR10 = Path(
    os.environ.get("BEZOAR_CIFAR10", Path(__file__).parents[3] / "shared/data/cifar10")
)
DATA = noise_images(23)
PNG = encode_png(DATA.images[0])
FORMATS = ("class_folders", "parquet", "webdataset", "dataset")


def write(data: ImageData, out: Path, kind: Any) -> Path:
    """Write a set in any format, also in the library's own."""
    if kind != "dataset":
        write_images(data, out, format=kind)
        return out
    features = {"image": ImageFeature(), "label": ClassLabel(names=data.class_names)}
    files = [{"bytes": encode_png(image), "path": None} for image in data.images]
    columns = {"image": files, "label": data.labels.tolist()}
    Dataset.from_dict(columns, features=Features(features)).save_to_disk(str(out))
    return out


def in_order(data: ImageData) -> ImageData:
    """Sort by content: folders are read by class, others as they were written."""
    order = sorted(range(len(data)), key=lambda i: data.images[i].numpy().tobytes())
    return data.take(torch.tensor(order))


def reasons(source: ImageSource) -> dict[str, str]:
    _, unreadable = source.read(image_size=(8, 8))
    return {u.id: u.reason for u in unreadable}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_images_come_out_of_every_format(tmp_path: Path, kind: str) -> None:
    source = open_source(write(DATA, tmp_path / "set", kind))
    assert (source.format, source.num_images) == (kind, 23)
    names = ("0", "1") if kind == "webdataset" else ("even", "odd")  # it holds numbers
    assert source.class_names == names
    data, unreadable = source.read()
    assert unreadable == ()
    assert in_order(data).images.equal(in_order(DATA).images)
    assert in_order(data).labels.equal(in_order(DATA).labels)


def test_ids_say_where_an_image_is(tmp_path: Path) -> None:
    first = {k: open_source(write(DATA, tmp_path / k, k)) for k in FORMATS}
    ids = {kind: source.read(limit=2)[0].ids for kind, source in first.items()}
    assert ids == {
        "class_folders": ("even/noise/0.png", "even/noise/10.png"),
        "parquet": ("images.parquet#0", "images.parquet#1"),
        "webdataset": ("images.tar#noise/0", "images.tar#noise/1"),
        "dataset": ("train#0", "train#1"),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_hold_the_same_rows_whatever_is_skipped(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(write(DATA, tmp_path / "set", kind))
    blocks = list(source.blocks(5, image_size=(8, 8)))
    assert [b.index for b in blocks] == [0, 1, 2, 3, 4]
    assert [len(b.data) for b in blocks if b.data is not None] == [5, 5, 5, 5, 3]
    whole = join([b.data for b in blocks if b.data is not None])
    assert whole.ids == source.read(image_size=(8, 8))[0].ids
    decoded: list[bytes] = []
    plain = decode._decode

    def watched(data: bytes, *, max_pixels: int) -> Image.Image:
        decoded.append(data)
        return plain(data, max_pixels=max_pixels)

    monkeypatch.setattr(decode, "_decode", watched)
    (last,) = source.blocks(5, image_size=(8, 8), skip={0, 1, 2, 3})
    assert len(decoded) == 3
    assert last.index == 4
    assert last.data is not None
    assert last.data.ids == whole.ids[20:]
    assert last.data.images.equal(whole.images[20:])


def test_images_of_other_sizes_are_resized(tmp_path: Path) -> None:
    folder = write(noise_images(3, size=16), tmp_path / "a", "class_folders")
    (folder / "even" / "b.png").write_bytes(PNG)
    (folder / "even" / "c.png").write_bytes(encode_png(DATA.images[1][:, :4]))
    source = open_source(folder)
    assert source.probe_size() == (16, 16)
    assert source.probe_size(largest=10) == (10, 10)
    data, _ = source.read()
    assert data.images.shape == (5, 3, 16, 16)
    (block,) = source.blocks(9, image_size=(2, 6))
    assert block.data is not None
    assert block.data.images.shape == (5, 3, 2, 6)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "Z.png", "10.png", "9.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    source = open_source(tmp_path)
    data, unreadable = source.read()
    assert (source.format, source.class_names, unreadable) == ("flat_folder", (), ())
    assert data.ids == ("10.png", "9.png", "Z.png", "a.PNG", "b.png")  # by bytes
    assert data.labels.tolist() == [-1] * 5


def test_class_folders_may_be_deep_and_a_class_may_be_empty(tmp_path: Path) -> None:
    for name in ("cat/a/b/1.png", "dog/2.png", ".hidden/3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(PNG)
    for name in ("bear", ".git"):
        (tmp_path / name).mkdir()
    source = open_source(tmp_path)
    assert source.class_names == (".hidden", "bear", "cat", "dog")
    data, _ = source.read()
    assert dict(zip(data.ids, data.labels.tolist(), strict=True)) == {
        ".hidden/3.png": 0,
        "cat/a/b/1.png": 2,
        "dog/2.png": 3,
    }


def test_files_that_are_no_images_are_listed_and_the_rest_is_read(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    (folder / "good.png").write_bytes(PNG)
    (folder / "text.jpg").write_text("these are words")
    (folder / "empty.png").touch()
    (folder / "half.png").write_bytes(PNG[: len(PNG) // 2])
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no space
    source = open_source(tmp_path)
    assert source.num_images == 5
    found = reasons(source)
    assert found.pop("cat/sparse.png").startswith("a file of 1,099,511,627,776 bytes")
    assert found.pop("cat/text.jpg").startswith("not an image")
    assert found == {
        "cat/empty.png": "an empty file",
        "cat/half.png": "truncated: the file ends too early",
    }
    (block,) = source.blocks(9, image_size=(8, 8))
    assert block.data is not None
    assert block.data.ids == ("cat/good.png",)


def test_a_block_without_a_readable_image_has_no_data(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"{index}.jpg").write_text("words")
    (tmp_path / "2.png").write_bytes(PNG)
    first, second = open_source(tmp_path).blocks(2, image_size=(8, 8))
    assert first.data is None
    assert [u.id for u in first.unreadable] == ["0.jpg", "1.jpg"]
    assert second.data is not None


def test_links_are_followed_inside_the_folder_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(PNG)
    cats = tmp_path / "set" / "cat"
    cats.mkdir(parents=True)
    (cats / "1.png").write_bytes(PNG)
    (cats / "2.png").symlink_to(cats / "1.png")
    (cats / "3.png").symlink_to(outside / "secret.png")
    (cats / "4.png").symlink_to("../../outside/secret.png")
    (cats / "5.png").symlink_to("nowhere.png")
    (cats / "6.png").symlink_to("6.png")
    (cats / "loop").symlink_to("..")
    (tmp_path / "set" / "dog").symlink_to(outside)
    (cats / "notes.txt").symlink_to("/etc/hostname")
    source = open_source(tmp_path / "set")
    assert source.class_names == ("cat",)
    assert source.read()[0].ids == ("cat/1.png", "cat/2.png")
    assert reasons(source) == {
        "cat/3.png": "a link that leaves the folder",
        "cat/4.png": "a link that leaves the folder",
        "cat/5.png": "a link to nothing",
        "cat/6.png": "a link to nothing",
        "cat/loop": "a link to a folder",
        "dog": "a link that leaves the folder",
    }
    assert source.num_images == 8


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    write(DATA, tmp_path / "set", "class_folders")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert len(open_source(tmp_path / "link").read()[0]) == 23


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    os.mkfifo(tmp_path / "2.png")  # a reader would wait for ever
    (tmp_path / "3.png").symlink_to("2.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "4.png"))
        found = reasons(open_source(tmp_path))
    assert found == dict.fromkeys(
        ("2.png", "3.png", "4.png"), "not a plain file but a link, pipe or device"
    )


def test_names_are_kept_exactly_unless_they_are_no_text(tmp_path: Path) -> None:
    names = ["a\nb.png", "a b #1.png", "käse.png"]
    for name in names:
        (tmp_path / name).write_bytes(PNG)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))).write_bytes(PNG)
    source = open_source(tmp_path)
    assert sorted(source.read()[0].ids) == sorted(names)
    assert reasons(source) == {"\\xff.png": "its name is not UTF-8"}


def test_folders_beyond_a_hundred_levels_are_listed(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 101)
    deep.mkdir(parents=True)
    (deep / "lost.png").write_bytes(PNG)
    (deep.parent / "1.png").write_bytes(PNG)
    source = open_source(tmp_path)
    assert source.read()[0].ids == ("d/" * 100 + "1.png",)
    assert reasons(source) == {"/".join("d" * 101): "a folder 100 levels deep"}


def test_an_image_that_is_gone_is_listed(tmp_path: Path) -> None:
    source = open_source(write(DATA, tmp_path / "set", "class_folders"))
    records = source.records()
    first = next(records)
    assert first.path is not None
    first.path.unlink()
    with pytest.raises(InputError, match=r"cannot be opened \(No such file"):
        first.read(max_bytes=100)


def test_what_is_not_there_or_not_a_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.png").write_bytes(PNG)
    write(DATA, tmp_path / "mixed" / "t.parquet", "parquet")
    (tmp_path / "both" / "cat").mkdir(parents=True)
    (tmp_path / "both" / "cat" / "1.png").write_bytes(PNG)
    (tmp_path / "both" / "2.png").write_bytes(PNG)
    (tmp_path / "one.png").write_bytes(PNG)
    cases: list[tuple[str, type[BezoarError], str]] = [
        ("empty", EmptyError, "found none; give a folder of images"),
        ("nowhere/at/all", InputError, "which is not there; correct the path"),
        ("mixed", InputError, r"got 1 \*.parquet and 1 images"),
        ("both", InputError, "got 1 in folders and 1 beside them; move either"),
        ("one.png", InputError, "got files that end in .png"),
        ("*.tar", EmptyError, "found none; correct the pattern"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind, match=message):
            open_source(tmp_path / name)


def test_a_set_without_a_readable_image_is_empty(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_text("words")
    with pytest.raises(EmptyError, match=r"none that can be read \('1.jpg' is not an"):
        open_source(tmp_path).read()
    with pytest.raises(EmptyError, match="none that can be read"):
        open_source(tmp_path).read(image_size=(8, 8))


def test_sizes_must_be_positive(tmp_path: Path) -> None:
    source = open_source(write(DATA, tmp_path / "set", "class_folders"))
    with pytest.raises(InputError, match="expected positive sizes"):
        list(source.blocks(0, image_size=(8, 8)))
    with pytest.raises(InputError, match="expected positive sizes"):
        list(source.blocks(5, image_size=(0, 8)))


def test_the_bound_on_pixels_lists_larger_images(tmp_path: Path) -> None:
    write(DATA, tmp_path / "set", "class_folders")
    (tmp_path / "set" / "odd" / "x.png").write_bytes(
        encode_png(torch.zeros(3, 9, 8, dtype=torch.uint8))
    )
    source = open_source(tmp_path / "set", max_pixels=64)
    assert reasons(source) == {"odd/x.png": "too many pixels (8 x 9; at most 64)"}


@pytest.mark.skipif(
    not (CIFAR10 / "test.parquet").is_file(),
    reason="needs CIFAR-10 as parquet, in ../shared/data or where BEZOAR_CIFAR10 says",
)
def test_cifar10_is_read_as_it_was_published() -> None:
    source = open_source(CIFAR10, split="test")
    assert (source.num_images, source.image_column, source.label_column) == (
        10_000,
        "img",
        "label",
    )
    assert source.class_names[:2] + source.class_names[-1:] == (
        "airplane",
        "automobile",
        "truck",
    )
    data, unreadable = source.read(limit=500)
    assert data.images.shape == (500, 3, 32, 32)
    assert unreadable == ()
    assert data.ids[-1] == "test.parquet#499"
    counts = data.labels.bincount(minlength=10)
    assert counts.min() > 30  # rows are shuffled, so the first are a balanced sample
