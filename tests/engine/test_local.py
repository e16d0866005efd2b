import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bezoar.data import Block, ImageData, noise_images, open_source, write_images
from bezoar.data.sampling import sample_images
from bezoar.data.write_images import NewFormat
from bezoar.engine import BlockSource, collect, run_blocks, sample_source
from bezoar.errors import EmptyError, InputError, StorageError
from bezoar.results import Scores
from bezoar.runtime import Progress, Runtime
from bezoar.storage import RunLock

SIZE = (8, 8)


def brightness(data: ImageData) -> Scores:
    values = data.images.float().mean(dim=(1, 2, 3)) / 255
    return Scores(ids=data.ids, labels=data.labels, columns={"brightness": values})


def run(
    source: Any,
    *,
    work: Callable[[ImageData], Scores] = brightness,
    key: str = "k",
    block_size: int = 4,
    work_dir: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Any:
    runtime = Runtime(block_size=block_size, work_dir=work_dir, progress=progress)
    return run_blocks(source, work, image_size=SIZE, key=key, runtime=runtime)


def assert_same(first: Any, second: Any) -> None:
    (scores, bad), (other, other_bad) = first, second
    assert bad == other_bad
    assert scores.ids == other.ids
    assert scores.labels.equal(other.labels)
    assert scores.columns["brightness"].equal(other.columns["brightness"])


@pytest.mark.parametrize("block_size", [1, 3, 4, 10, 99])
@pytest.mark.parametrize("kept", [False, True])
def test_scores_are_those_of_the_readable_images_in_order(
    source: Any, block_size: int, kept: bool, tmp_path: Path
) -> None:
    work_dir = tmp_path if kept else None
    scores, bad = run(source, block_size=block_size, work_dir=work_dir)
    good = [i for i in range(10) if f"noise/{i}" not in source.broken]
    expected = brightness(source.data.take(torch.tensor(good)))
    assert_same((scores, bad), (expected, bad))
    assert [(u.id, u.reason) for u in bad] == [(i, "no image") for i in source.broken]


def test_a_run_that_failed_goes_on_without_its_finished_blocks(
    source: Any, tmp_path: Path
) -> None:
    def fails(data: ImageData) -> Scores:
        if "noise/8" in data.ids:
            raise RuntimeError("power cut")
        return brightness(data)

    with pytest.raises(RuntimeError, match="power cut"):
        run(source, work=fails, work_dir=tmp_path)
    source.decoded.clear()
    found = run(source, work_dir=tmp_path)
    assert source.decoded == [2]
    assert_same(found, run(source))


def test_a_finished_run_decodes_nothing_again(source: Any, tmp_path: Path) -> None:
    first = run(source, work_dir=tmp_path)
    source.decoded.clear()
    assert_same(run(source, work_dir=tmp_path), first)
    source.knows_length = False
    assert_same(run(source, work_dir=tmp_path), first)
    assert source.decoded == []


def test_a_damaged_block_is_computed_again(source: Any, tmp_path: Path) -> None:
    first = run(source, work_dir=tmp_path)
    path = tmp_path / "blocks" / "00000000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    source.decoded.clear()
    assert_same(run(source, work_dir=tmp_path), first)
    assert source.decoded == [0]


@pytest.mark.parametrize("other", [{"key": "l"}, {"block_size": 5}])
def test_results_of_other_settings_are_refused(
    source: Any, other: dict[str, Any], tmp_path: Path
) -> None:
    run(source, work_dir=tmp_path)
    with pytest.raises(StorageError, match="holds results of other settings"):
        run(source, work_dir=tmp_path, **other)


def test_two_runs_in_one_work_folder_are_refused(source: Any, tmp_path: Path) -> None:
    with (
        RunLock(tmp_path / "blocks"),
        pytest.raises(StorageError, match="expected no other run"),
    ):
        run(source, work_dir=tmp_path)
    run(source, work_dir=tmp_path)


def test_data_that_changed_between_runs_are_refused(
    make_source: Any, tmp_path: Path
) -> None:
    whole = noise_images(13)
    run(make_source(whole.take(torch.arange(12))), work_dir=tmp_path)
    with pytest.raises(StorageError, match=r"got 12 images .*data changed"):
        run(make_source(whole.take(torch.arange(7))), work_dir=tmp_path)
    shifted = make_source(whole.take(torch.arange(1, 13)))
    (tmp_path / "blocks" / "00000000.parquet").unlink()
    with pytest.raises(InputError, match="if the data changed since it was begun"):
        run(shifted, work_dir=tmp_path)


def test_a_block_that_never_came_is_missed(source: Any) -> None:
    blocks = source.blocks(4, image_size=SIZE, skip=(1,))
    gap = SimpleNamespace(
        format="", class_names=(), num_images=None, blocks=lambda *_, **__: blocks
    )
    with pytest.raises(StorageError, match="2 blocks up to 2"):
        run(gap)


def test_an_id_that_comes_twice_in_different_blocks_is_named() -> None:
    data = noise_images(3)
    twice = SimpleNamespace(
        format="",
        class_names=data.class_names,
        num_images=6,
        blocks=lambda *_, **__: (
            Block(index=i, data=data, unreadable=()) for i in range(2)
        ),
    )
    with pytest.raises(InputError, match="got 'noise/0' more than once"):
        run(twice)


def test_nothing_readable_is_an_empty_error_with_the_first_reason(
    make_source: Any,
) -> None:
    data = noise_images(3)
    with pytest.raises(
        EmptyError, match=r"got 3 files and none .*because of 'no image'"
    ):
        run(make_source(data, broken=data.ids))


def test_a_work_that_loses_images_is_refused(source: Any) -> None:
    def first(data: ImageData) -> Scores:
        return brightness(data.take(torch.tensor([0])))

    with pytest.raises(InputError, match="scores of the 3 images given"):
        run(source, work=first)


def test_progress_counts_images_and_ends_at_the_total(
    source: Any, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    run(source, work_dir=tmp_path, progress=seen.append)
    assert [(p.stage, p.done, p.total) for p in seen] == [
        *(("score", 0, 10), ("score", 4, 10), ("score", 8, 10), ("score", 10, 10))
    ]
    assert all(p.metrics["images_per_second"] > 0 for p in seen[1:])
    (tmp_path / "blocks" / "00000002.parquet").unlink()
    seen.clear()
    run(source, work_dir=tmp_path, progress=seen.append)
    assert [p.done for p in seen] == [8, 10]


def test_an_unknown_total_is_reported_as_none(make_source: Any) -> None:
    seen: list[Progress] = []
    run(make_source(noise_images(5), knows_length=False), progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(0, 0), (4, 0), (5, 0)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "disk")])
def test_an_error_leaves_no_thread_no_lock_and_a_closed_source(
    source: Any, error: BaseException, tmp_path: Path
) -> None:
    def fails(_: ImageData) -> Scores:
        raise error

    with pytest.raises((KeyboardInterrupt, OSError)):
        run(source, work=fails, work_dir=tmp_path)
    assert source.closed
    assert not [t for t in threading.enumerate() if t.name.startswith("bezoar")]
    assert run(source, work_dir=tmp_path)


def test_an_error_of_the_source_comes_out(source: Any) -> None:
    with pytest.raises(AssertionError):
        run_blocks(source, brightness, image_size=(9, 9), key="", runtime=Runtime())


def test_a_work_folder_that_cannot_be_made_is_said(source: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another --out"):
        run(source, work_dir=tmp_path / "file")


def test_a_full_disk_keeps_what_was_finished(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fills(data: ImageData) -> Scores:
        if "noise/8" in data.ids:
            monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        return brightness(data)

    with pytest.raises(StorageError, match="got No space left on device; choose"):
        run(source, work=fills, work_dir=tmp_path)
    monkeypatch.undo()
    left = sorted(p.name for p in (tmp_path / "blocks").iterdir())
    assert left == [".lock", "00000000.parquet", "00000001.parquet"]


@pytest.mark.parametrize("block_size", [1, 4, 99])
def test_the_sample_of_a_source_is_that_of_its_images(
    make_source: Any, block_size: int
) -> None:
    data = noise_images(40)
    seen: list[Progress] = []
    drawn = sample_source(
        make_source(data, broken=("noise/3",)),
        9,
        image_size=SIZE,
        seed=2,
        runtime=Runtime(block_size=block_size, progress=seen.append),
    )
    readable = data.subset(torch.tensor([i != "noise/3" for i in data.ids]))
    expected = sample_images(readable, 9, seed=2)
    assert drawn.ids == expected.ids
    assert drawn.images.equal(expected.images)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("sample", 40, 40)


FORMATS: list[NewFormat] = ["class_folders", "parquet", "webdataset"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_images_in_another_format_give_the_same(
    format: NewFormat, tmp_path: Path
) -> None:
    data = noise_images(40)
    write_images(data, tmp_path / "set", format=format)
    source = open_source(tmp_path / "set")
    assert isinstance(source, BlockSource)
    scores, bad = run(source, block_size=7, work_dir=tmp_path / "work")
    assert bad == ()
    expected = brightness(data).columns["brightness"]
    found = scores.columns["brightness"]
    assert found.sort().values.equal(expected.sort().values)
    runtime = Runtime(block_size=7)
    drawn = sample_source(source, 9, image_size=SIZE, seed=2, runtime=runtime)
    sample = sample_images(data, 9, seed=2)
    assert drawn.images.equal(sample.images)
    assert drawn.labels.equal(sample.labels)
    darkest = scores.ids[int(found.argmin())]
    (image,) = collect(source, (darkest,), image_size=SIZE).images
    assert image.equal(data.images[expected.argmin()])


def test_collected_images_come_in_the_order_asked_for(make_source: Any) -> None:
    data = noise_images(600)
    source = make_source(data)
    ids = tuple(f"noise/{i}" for i in (511, 3, 256, 0))
    found = collect(source, ids, image_size=SIZE)
    assert found.ids == ids
    assert found.images.equal(data.images[[511, 3, 256, 0]])
    assert source.closed


def test_ids_that_are_not_there_are_named(source: Any) -> None:
    with pytest.raises(InputError, match="none for 1, such as 'noise/4'; give"):
        collect(source, ("noise/0", "noise/4"), image_size=SIZE)
    with pytest.raises(InputError, match="expected to read 0 images"):
        collect(source, (), image_size=SIZE)
