"""A table of images and captions written back: rows, files, and other columns."""

from pathlib import Path

import pytest
import torch

from bezoar.data import open_pairs, shape_pairs, write_pairs, write_source
from bezoar.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(shape_pairs(6), tmp_path / "set")
    return tmp_path / "set"


def test_kept_rows_keep_their_cells_and_bytes(folder: Path, tmp_path: Path) -> None:
    source = open_pairs(folder)
    ids = [id_ for id_, _ in source.captions()]
    count = write_source(source.images, tmp_path / "out", keep=ids[1:5])
    assert count == 4
    (table,) = folder.glob("*.csv")
    rows = table.read_text().splitlines()
    assert (tmp_path / "out" / table.name).read_text().splitlines() == [
        rows[0],
        *rows[2:6],
    ]
    for path in (tmp_path / "out").rglob("*.png"):
        same = folder / path.relative_to(tmp_path / "out")
        assert path.read_bytes() == same.read_bytes()
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_a_new_image_takes_the_place_of_the_old(folder: Path, tmp_path: Path) -> None:
    source = open_pairs(folder)
    first = next(source.captions())[0]
    black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    write_source(source.images, tmp_path / "out", images={first: black})
    data, _ = open_pairs(tmp_path / "out").read(image_size=(8, 8))
    assert data.images[0].equal(black)
    assert data.captions == open_pairs(folder).read()[0].captions


def test_nothing_is_written_into_the_set(folder: Path) -> None:
    with pytest.raises(InputError, match="outside the set"):
        write_source(open_pairs(folder).images, folder / "out")
