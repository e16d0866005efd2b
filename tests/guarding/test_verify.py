"""Reading every file: what cannot be read, and what is there twice."""

from pathlib import Path

import pytest
from PIL import Image

from bezoar.data import noise_images, open_source, write_images
from bezoar.errors import EmptyError, StorageError
from bezoar.guarding import verify
from bezoar.guarding.verify import load_verified, save_verified
from bezoar.runtime import Progress


def silent(_: Progress) -> None:
    pass


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(noise_images(8, size=32), tmp_path / "p", format="class_folders")
    return tmp_path / "p"


def test_nothing_is_said_of_a_sound_set(photos: Path) -> None:
    seen: list[Progress] = []
    found = verify(open_source(photos), report=seen.append)
    assert (found.num_images, found.unreadable) == (8, ())
    assert found.exact == found.near == found.conflicts == ()
    assert found.summary == "8 images"
    assert (seen[-1].done, seen[-1].total) == (8, 8)


def test_each_kind_of_fault_is_told_apart(photos: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted((photos / "even").rglob("*.png"))
    (photos / "odd" / "copy.png").write_bytes(first.read_bytes())
    (photos / "odd" / "broken.png").write_text("no image")
    Image.open(second).resize((64, 64), 0).save(photos / "even" / "large.png")
    found = verify(open_source(photos), report=silent)
    assert found.num_images == 10
    assert [u.id for u in found.unreadable] == ["odd/broken.png"]
    assert found.exact == ((str(first.relative_to(photos)), "odd/copy.png"),)
    assert found.conflicts == found.exact
    assert [set(g) for g in found.near] == [
        {str(second.relative_to(photos)), "even/large.png"}
    ]
    assert "1 exact duplicates" in found.summary
    save_verified(found, tmp_path)
    assert load_verified(tmp_path) == found


def test_a_set_without_an_image_is_nothing_to_scan(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_text("no image")
    with pytest.raises(EmptyError, match="can be read"):
        verify(open_source(tmp_path), report=silent)


def test_what_was_kept_must_be_whole(tmp_path: Path) -> None:
    (tmp_path / "verified.json").write_text('{"num_images": 3}')
    with pytest.raises(StorageError, match="another format"):
        load_verified(tmp_path)
