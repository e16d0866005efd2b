"""Pairs on disk: every format, ids, captions that are missing, paths that leave."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bezoar.data import open_pairs, shape_pairs, shape_prompts, write_pairs
from bezoar.data.choice import encode_png
from bezoar.data.pair_source import PairSource
from bezoar.data.texts import NO_CAPTION
from bezoar.errors import BezoarError, EmptyError, InputError, StorageError
from tests.data.test_tars import archive, member

DATA = shape_pairs(6)
PNGS = [encode_png(image) for image in DATA.images]


def reasons(source: PairSource) -> dict[str, str]:
    return {u.id: u.reason for u in source.read(image_size=(24, 24))[1]}


def as_csv(folder: Path) -> Path:
    write_pairs(DATA, folder)
    return folder


def as_tsv(folder: Path) -> Path:
    write_pairs(DATA, folder)
    table = (folder / "captions.csv").read_text().replace(",", "\t")
    (folder / "captions.csv").unlink()
    (folder / "pairs.tsv").write_text(table)
    return folder / "pairs.tsv"


def as_parquet(folder: Path) -> Path:
    folder.mkdir()
    files = [{"bytes": png, "path": None} for png in PNGS]
    table = pa.table(
        {"label": DATA.labels.tolist(), "caption": DATA.captions, "image": files}
    )
    pq.write_table(table, folder / "a.parquet")
    return folder


def as_saved(folder: Path) -> Path:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=list(DATA.class_names)),
        }
    )
    columns = {
        "image": [{"bytes": png, "path": None} for png in PNGS],
        "text": [[c, "another caption"] for c in DATA.captions],
        "label": DATA.labels.tolist(),
    }
    found = datasets.Dataset.from_dict(columns, features=features)
    found.save_to_disk(str(folder))
    return folder


def as_tar_of_texts(folder: Path) -> Path:
    folder.mkdir()
    members = []
    for i, (png, caption) in enumerate(zip(PNGS, DATA.captions, strict=True)):
        members += [
            member(f"{i}.png", png),
            member(f"{i}.txt", f"{caption}\n".encode()),
            member(f"{i}.cls", str(int(DATA.labels[i])).encode()),
        ]
    archive(folder / "a.tar", *members)
    return folder / "a.tar"


def as_tar_of_json(folder: Path) -> Path:
    folder.mkdir()
    members = []
    for i, (png, caption) in enumerate(zip(PNGS, DATA.captions, strict=True)):
        told = {"caption": caption, "label": int(DATA.labels[i])}
        members += [
            member(f"{i}.json", json.dumps(told).encode()),
            member(f"{i}.png", png),
        ]
    archive(folder / "a.tar", *members)
    return folder


FORMATS = [as_csv, as_tsv, as_parquet, as_saved, as_tar_of_texts, as_tar_of_json]


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_written_is_read(form: Callable[[Path], Path], tmp_path: Path) -> None:
    source = open_pairs(form(tmp_path / "set"))
    assert source.num_pairs == 6
    data, unreadable = source.read()
    assert not unreadable
    assert data.images.equal(DATA.images)
    assert data.captions == DATA.captions
    names = [data.class_names[i] for i in data.labels.tolist()]
    told = [DATA.class_names[i] for i in DATA.labels.tolist()]
    assert names == told or [int(n) for n in names] == DATA.labels.tolist()
    assert len(set(data.ids)) == 6
    assert list(source.captions()) == list(zip(data.ids, data.captions, strict=True))


@pytest.mark.parametrize("form", [as_csv, as_parquet, as_tar_of_json])
def test_blocks_are_stable_and_skipped_ones_leave_no_caption(
    form: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = open_pairs(form(tmp_path / "set"))
    every = list(source.blocks(4, image_size=(24, 24)))
    assert [len(b.data) for b in every if b.data] == [4, 2]
    (last,) = source.blocks(4, image_size=(24, 24), skip={0})
    assert last.index == 1
    assert last.data is not None
    assert last.data.captions == DATA.captions[4:]
    limited, _ = source.read(limit=3)
    assert limited.captions == DATA.captions[:3]


def table(folder: Path, *rows: str, heads: str = "filepath,title") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "pairs.csv"
    path.write_text("\n".join([heads, *rows]) + "\n")
    return path


def test_paths_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(PNGS[0])
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "in.png").write_bytes(PNGS[1])
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    rows = [
        "in.png,a square",
        f"{folder}/in.png,the same by its whole path",
        "../out.png,a circle",
        f"{tmp_path}/out.png,a circle",
        "link.png,a circle",
        "gone.png,a circle",
        ",no path",
        "in.png,",
    ]
    source = open_pairs(table(folder, *rows))
    data, _ = source.read(image_size=(24, 24))
    assert data.captions == ("a square", "the same by its whole path")
    leaves = "a path that leaves the folder of the table"
    assert reasons(source) == {
        "../out.png": leaves,
        f"{tmp_path}/out.png": leaves,
        "link.png": leaves,
        "gone.png": "cannot be opened (No such file or directory)",
        "#6": "it has no path",
        "in.png#7": NO_CAPTION,
    }


def test_several_captions_of_one_image_have_ids_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNGS[0])
    rows = ['a.png,"a circle, red"', "a.png,a red circle", "a.png,a red circle"]
    data, _ = open_pairs(table(folder, *rows)).read()
    assert data.ids == ("a.png", "a.png#1", "a.png#2")
    assert data.captions == ("a circle, red", "a red circle", "a red circle")


def test_other_names_of_columns_can_be_given(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNGS[0])
    path = table(folder, "x,a circle,a.png", heads="who,words,where")
    with pytest.raises(InputError, match="name it with image_column"):
        open_pairs(path)
    data, _ = open_pairs(path, image_column="where", text_column="words").read()
    assert data.captions == ("a circle",)
    with pytest.raises(InputError, match="name it with text_column"):
        open_pairs(path, image_column="where", text_column="wrds")


def test_rows_without_a_caption_are_listed(tmp_path: Path) -> None:
    files = [{"bytes": png, "path": None} for png in PNGS[:4]]
    columns = {"image": files, "caption": ["a", None, " ", "d"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = open_pairs(tmp_path / "a.parquet")
    assert source.read()[0].captions == ("a", "d")
    assert reasons(source) == dict.fromkeys(("a.parquet#1", "a.parquet#2"), NO_CAPTION)
    tar = archive(
        tmp_path / "a.tar",
        member("0.png", PNGS[0]),
        member("1.png", PNGS[1]),
        member("1.json", b"{"),
        member("2.png", PNGS[2]),
        member("2.txt", b"c"),
    )
    assert open_pairs(tar).read()[0].captions == ("c",)
    assert set(reasons(open_pairs(tar))) == {"a.tar#0", "a.tar#1"}


def test_the_column_of_captions_is_found_or_asked_for(tmp_path: Path) -> None:
    files = [{"bytes": PNGS[0], "path": None}]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": files, "alt": ["a"], "url": ["b"]}), path)
    with pytest.raises(InputError, match="got alt, url; name one with text_column"):
        open_pairs(path)
    assert open_pairs(path, text_column="url").read()[0].captions == ("b",)
    with pytest.raises(InputError, match="correct text_column"):
        open_pairs(path, text_column="image")


def test_what_is_no_set_of_pairs_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNGS[0])
    with pytest.raises(InputError, match="open images alone with open_source"):
        open_pairs(tmp_path)
    with pytest.raises(EmptyError, match="rows of images and captions"):
        open_pairs(table(tmp_path / "none"))
    with pytest.raises(BezoarError, match="expected images with captions"):
        open_pairs(table(tmp_path / "bad", "b.png,a")).read(image_size=(8, 8))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("filepath,title\n")
    with pytest.raises(InputError, match=r"got a\.csv, b\.csv"):
        open_pairs(tmp_path)
    with pytest.raises(StorageError, match="empty folder"):
        write_pairs(DATA, tmp_path)


def test_made_up_shapes_are_what_they_are_called() -> None:
    assert all(
        caption in shape_prompts()[label]
        for caption, label in zip(DATA.captions, DATA.labels.tolist(), strict=True)
    )
    assert shape_pairs(6).images.equal(DATA.images)
    assert not shape_pairs(6, seed=1).images.equal(DATA.images)
    areas = (shape_pairs(4).images[:, 0] > 128).flatten(1).float().mean(1)
    assert bool((areas > 0.02).all())


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = table(tmp_path / "set", "a.png,a")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        open_pairs(path)
