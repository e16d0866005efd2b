"""Parquet files, saved data sets and the Hub: columns, labels, damage."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bezoar.data import ImageSource, noise_images, open_source, write_images
from bezoar.data.choice import encode_png
from bezoar.errors import EmptyError, InputError

DATA = noise_images(6)
PNGS = [encode_png(image) for image in DATA.images]
FILES = [{"bytes": png, "path": "a.png"} for png in PNGS]
NAMES = datasets.ClassLabel(names=["cat", "dog"])


def parquet(path: Path, columns: dict[str, object], **features: object) -> Path:
    table = pa.table(columns)
    if features:
        declared = datasets.Features.from_arrow_schema(table.schema)
        declared.update(features)
        table = table.cast(declared.arrow_schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def labels(source: ImageSource) -> dict[str, int]:
    data, _ = source.read(image_size=(8, 8))
    return dict(zip(data.ids, data.labels.tolist(), strict=True))


def reasons(source: ImageSource) -> dict[str, str]:
    return {u.id: u.reason for u in source.read(image_size=(8, 8))[1]}


def test_class_names_come_from_the_description_in_the_schema(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        {"img": FILES, "id": range(6), "label": [0, 1, 1, 0, 0, 1]},
        img=datasets.Image(),
        label=NAMES,
    )
    source = open_source(path)
    assert source.class_names == ("cat", "dog")
    assert (source.image_column, source.label_column) == ("img", "label")
    assert list(labels(source).values()) == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([0, 1, 3, 3, 1, 0], ("0", "1", "2", "3"), [0, 1, 3, 3, 1, 0]),
        (["dog", "cat", "dog", "Eel", "cat", "dog"], ("Eel", "cat", "dog"), None),
        ([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], ("0", "1"), [0, 1, 1, 0, 1, 1]),
        ([True, False, True, True, True, True], ("0", "1"), [1, 0, 1, 1, 1, 1]),
        ([-1] * 6, (), [-1] * 6),
        (pa.nulls(6, pa.int64()), (), [-1] * 6),
    ],
)
def test_labels_of_every_kind_become_class_indices(
    tmp_path: Path,
    values: object,
    names: tuple[str, ...],
    expected: list[int] | None,
) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": PNGS, "label": values})
    source = open_source(path)
    assert source.class_names == names
    assert list(labels(source).values()) == (expected or [2, 1, 2, 0, 1, 2])


def test_a_row_without_label_or_image_is_listed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNGS[0])
    first = {"path": "a.png", "bytes": PNGS[0]}  # the fields may come in any order
    files = [first, *FILES[1:3], None, {"bytes": None, "path": str(secret)}, FILES[5]]
    path = parquet(
        tmp_path / "a.parquet", {"image": files, "label": [0, None, 1, 1, 1, 0]}
    )
    source = open_source(path)
    assert labels(source) == {"a.parquet#0": 0, "a.parquet#2": 1, "a.parquet#5": 0}
    only_path = "only a path, without the image; embed the bytes in the table"
    assert reasons(source) == {
        "a.parquet#1": "it has no label that can be read",
        "a.parquet#3": only_path,
        "a.parquet#4": only_path,  # a table must not name files of this machine
    }


@pytest.mark.parametrize("wrong", [2, -1])
def test_labels_outside_the_declared_names_are_refused(
    tmp_path: Path, wrong: int
) -> None:
    table = pa.table({"image": PNGS, "label": [0, 1, 0, wrong, 0, 1]})
    schema = datasets.Features(
        {"image": datasets.Value("binary"), "label": NAMES}
    ).arrow_schema
    pq.write_table(table.cast(schema), tmp_path / "a.parquet")
    message = f"from 0 to 1, got {wrong} for 'a.parquet#3'; correct the label"
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2, 3, 10**12, 0], "from 0 to 99999, got 1000000000000"),
        ([0, -7, 2, 3, 1, 0], "got -7 for 'a.parquet#1'"),
        ([0.5, 1, 2, 3, 1, 0], "whole numbers or text as labels, got 0.5"),
        ([[0]] * 6, r"whole numbers or text as labels, got \[0\]"),
    ],
)
def test_a_column_that_holds_no_classes_is_refused(
    tmp_path: Path, values: object, message: str
) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": PNGS, "kind": values})
    with pytest.raises(InputError, match=message):
        open_source(path, label_column="kind")


def test_columns_are_found_or_asked_for(tmp_path: Path) -> None:
    both = parquet(
        tmp_path / "both.parquet",
        {"left": FILES, "right": PNGS, "fine": [0] * 6, "coarse": [1] * 6},
        fine=NAMES,
        coarse=NAMES,
    )
    with pytest.raises(InputError, match="left, right; name one with image_column"):
        open_source(both)
    with pytest.raises(InputError, match="fine, coarse; name one with label_column"):
        open_source(both, image_column="right")
    with pytest.raises(InputError, match=r"column 'up' in both.parquet, got left"):
        open_source(both, image_column="up")
    with pytest.raises(InputError, match=r"got coarse \(int64\); embed the bytes"):
        open_source(both, image_column="coarse", label_column="fine")
    source = open_source(both, image_column="right", label_column="coarse")
    assert set(labels(source).values()) == {1}
    none = parquet(tmp_path / "none.parquet", {"url": ["http://x"], "label": [0]})
    with pytest.raises(InputError, match=r"in none.parquet, got url \(string\), label"):
        open_source(none)


def test_a_folder_or_a_pattern_of_files_is_one_set(tmp_path: Path) -> None:
    for index in (0, 1):
        parquet(
            tmp_path / "set" / f"part-{index}.parquet",
            {"image": PNGS[3 * index :][:3], "label": [index] * 3},
        )
    expected = {f"part-{i}.parquet#{row}": i for i in (0, 1) for row in range(3)}
    assert labels(open_source(tmp_path / "set")) == expected
    assert labels(open_source(tmp_path / "set" / "part-*.parquet")) == expected
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.parquet").symlink_to(tmp_path / "set" / "part-0.parquet")
    with pytest.raises(InputError, match=r"'a.parquet', a link that leaves the folder"):
        open_source(tmp_path / "link")
    assert open_source(tmp_path / "link" / "a.parquet").num_images == 3  # as asked for
    parquet(tmp_path / "set" / "other.parquet", {"image": PNGS, "label": ["a"] * 6})
    with pytest.raises(InputError, match=r"expected column 'label' in part-0.parquet"):
        open_source(tmp_path / "set")


def test_files_of_one_split_are_taken(tmp_path: Path) -> None:
    for name in ("train-0-of-2", "train-1-of-2", "val"):
        parquet(tmp_path / f"{name}.parquet", {"image": PNGS, "label": [0] * 6})
    assert open_source(tmp_path).num_images == 12
    assert open_source(tmp_path, split="validation").num_images == 6
    with pytest.raises(InputError, match="got train, validation; name one with split"):
        open_source(tmp_path, split="test")
    (tmp_path / "one").mkdir()
    (tmp_path / "val.parquet").rename(tmp_path / "one" / "val.parquet")
    assert open_source(tmp_path / "one").num_images == 6  # there is no other
    with pytest.raises(InputError, match=r"split 'train' in .*, got validation"):
        open_source(tmp_path / "one", split="train")
    parquet(tmp_path / "rest.parquet", {"image": PNGS, "label": [0] * 6})
    assert (
        open_source(tmp_path, split="test").num_images == 24
    )  # not all names tell a split


def test_rows_after_damage_are_listed_and_other_files_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        table = pa.table({"image": PNGS, "label": [0, 1] * 3})
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=2, use_dictionary=False)
    damaged = bytearray((tmp_path / "a.parquet").read_bytes())
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(1)
    start = group.column(0).data_page_offset
    damaged[start : start + 20] = b"\xff" * 20
    (tmp_path / "a.parquet").write_bytes(damaged)
    source = open_source(tmp_path)
    found, listed = labels(source), reasons(source)
    assert [i for i in found if i[0] == "b"] == [f"b.parquet#{i}" for i in range(6)]
    assert sorted([*found, *listed]) == [
        f"{n}.parquet#{i}" for n in "ab" for i in range(6)
    ]
    assert set(found.values()) == {0, 1}
    assert "a.parquet#2" in listed
    assert listed["a.parquet#5"].startswith("the file is damaged from row")


def test_a_file_that_is_no_table_or_has_no_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing PAR1")
    with pytest.raises(InputError, match="got one that cannot be read"):
        open_source(tmp_path / "a.parquet")
    empty = {"image": pa.array([], pa.binary())}
    with pytest.raises(EmptyError, match="found no rows"):
        open_source(parquet(tmp_path / "b.parquet", empty))


def test_a_description_that_makes_no_sense_is_ignored(tmp_path: Path) -> None:
    table = pa.table({"image": PNGS, "label": [0, 1] * 3})
    odd = {"info": {"features": {"image": {"_type": "Hologram"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(odd)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").class_names == ("0", "1")


def saved(folder: Path, split: str | None = None) -> Path:
    features = datasets.Features({"image": datasets.Image(), "label": NAMES})
    data = datasets.Dataset.from_dict(
        {"image": FILES, "label": [0, 1] * 3}, features=features
    )
    whole = data if split is None else datasets.DatasetDict({split: data})
    whole.save_to_disk(str(folder))
    return folder


def test_a_saved_dictionary_is_read_by_split(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path / "set", "test"), split="test")
    assert (source.format, source.class_names) == ("dataset", ("cat", "dog"))
    assert list(labels(source)) == [f"test#{i}" for i in range(6)]
    assert next(iter(labels(open_source(tmp_path / "set")))) == "test#0"
    with pytest.raises(InputError, match="got test; name one with split"):
        open_source(tmp_path / "set", split="train")
    hostile = {"splits": ["../set/test"]}
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps(hostile))
    with pytest.raises(InputError, match="expected a split"):
        open_source(tmp_path / "set", split="../set/test")


@pytest.mark.parametrize("name", ["../other/data-00000-of-00001.arrow", "link", None])
def test_a_saved_set_must_not_name_files_outside(
    tmp_path: Path, name: str | None
) -> None:
    other = saved(tmp_path / "other") / "data-00000-of-00001.arrow"
    folder = saved(tmp_path / "set")
    (folder / "link").symlink_to(other)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="expected data files inside"):
        open_source(folder)


def test_a_damaged_saved_set_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set")
    (folder / "data-00000-of-00001.arrow").write_bytes(b"nothing")
    with pytest.raises(InputError, match="got one that cannot be opened"):
        open_source(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match="got none that can be read"):
        open_source(folder)


class FakeStream:
    """Stands for what the Hub returns, with what is used of it."""

    def __init__(self, rows: list[dict[str, Any]], features: object) -> None:
        self.rows, self.features = rows, features
        size = SimpleNamespace(num_examples=len(rows))
        self.info = SimpleNamespace(splits={"train": size})
        self.was_cast = False

    def cast_column(self, name: str, feature: datasets.Image) -> "FakeStream":
        assert (name, feature.decode) == ("image", False)
        self.was_cast = True
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self.was_cast
        for row in self.rows:
            if row["image"] == "break":
                raise ConnectionError("the line is dead")
            yield row


def hub(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> ImageSource:
    features = datasets.Features({"image": datasets.Image(), "label": NAMES})

    def load_dataset(name: str, *, split: str, streaming: bool) -> FakeStream:
        assert (name, split, streaming) == ("owner/name", "train", True)
        return FakeStream(rows, features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return open_source("owner/name")


def test_a_set_on_the_hub_is_streamed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inside = "hf://datasets/owner/name@main/1.png"
    rows: list[dict[str, Any]] = [
        {"image": FILES[0], "label": 1},
        {"image": {"bytes": None, "path": inside}, "label": 0},
        {"image": {"bytes": None, "path": "/etc/passwd"}, "label": 0},
        {"image": {"bytes": None, "path": "hf://datasets/owner/other/1"}, "label": 0},
        {"image": None, "label": 0},
        {"image": FILES[5], "label": None},
    ]
    (tmp_path / "1.png").write_bytes(PNGS[1])
    fetched: list[str] = []

    def fetch(path: str, _: str) -> Any:
        fetched.append(path)
        return (tmp_path / "1.png").open("rb")

    monkeypatch.setattr(fsspec, "open", fetch)
    source = hub(monkeypatch, rows)
    assert (source.format, source.num_images) == ("hub", 6)
    assert labels(source) == {"train#0": 1, "train#1": 0}
    assert set(fetched) == {inside}
    only_path = "only a path, without the image; embed the bytes in the table"
    assert reasons(source) == dict.fromkeys(
        ("train#2", "train#3", "train#4"), only_path
    ) | {"train#5": "it has no label that can be read"}


def test_a_connection_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": FILES[0], "label": 1}, {"image": "break", "label": 0}]
    with pytest.raises(InputError, match="after row 1, got the line is dead"):
        list(hub(monkeypatch, rows).records())
    with pytest.raises(InputError, match=r"from 0 to 1, got 2 for 'train#0'"):
        list(hub(monkeypatch, [{"image": FILES[0], "label": 2}]).records())


def test_without_a_connection_a_hub_id_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_dataset(name: str, **_: object) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        InputError, match="got 'photos/cats': no such path, and the Hub"
    ):
        open_source("photos/cats")


def test_reading_local_data_leaves_nothing_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    write_images(DATA, tmp_path / "p", format="parquet")
    for folder in (tmp_path / "p", saved(tmp_path / "s")):
        assert len(labels(open_source(folder))) == 6
    assert not cache.exists()
