"""Tiles side by side: same bytes, same order, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

from bezoar import (
    Chain,
    EnergyFilter,
    EnergyNet,
    ImageData,
    PureDDPM,
    PureEBM,
    Runtime,
    UNet,
    calibrate_steps,
)
from bezoar.data import noise_images
from bezoar.errors import DivergedError
from bezoar.purify.side_by_side import side_by_side
from bezoar.runtime import Progress

CPU = torch.device("cpu")
NET = EnergyNet(num_filters=4, patch_size=2, image_size=(16, 16))
DATA = noise_images(200, size=16)  # three tiles and a part of one


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def purified(data: ImageData, *, runtime: Runtime) -> torch.Tensor:
    return PureEBM(steps=3).purify(data, energy=NET, runtime=runtime).data.images


def here(_: int) -> tuple[str, int]:
    return threading.current_thread().name, torch.get_num_threads()


def left_over() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("bezoar")]


def test_whole_rounds_have_a_thread_a_tile_and_a_last_tile_has_all() -> None:
    with side_by_side(here, range(5), device=CPU) as done:
        found = list(done)
    assert [tile for tile, _ in found] == list(range(5))
    names, threads = zip(*(result for _, result in found), strict=True)
    assert threads == (1, 1, 1, 1, 2)
    assert all(name.startswith("bezoar-tiles") for name in names[:4])
    assert names[4] == threading.current_thread().name
    assert not left_over()


def test_a_few_tiles_share_many_threads() -> None:
    torch.set_num_threads(6)
    with side_by_side(here, range(3), device=CPU) as done:
        assert [threads for _, (_, threads) in done] == [2, 2, 2]
    assert torch.get_num_threads() == 6


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_one_thread_and_other_devices_take_tile_after_tile(device: str) -> None:
    torch.set_num_threads(1 if device == "cpu" else 2)
    with side_by_side(here, range(3), device=torch.device(device)) as done:
        names = {name for _, (name, _) in done}
    assert names == {threading.current_thread().name}


def test_threads_that_begin_later_have_their_number() -> None:
    purified(DATA, runtime=Runtime())
    assert torch.get_num_threads() == 2
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2]


def test_the_first_error_reaches_the_caller() -> None:
    def work(tile: int) -> int:
        if tile > 0:
            raise ValueError(f"tile {tile}")
        return tile

    with side_by_side(work, range(6), device=CPU) as done:
        assert next(done) == (0, 0)
        with pytest.raises(ValueError, match="tile 1"):
            next(done)
    assert torch.get_num_threads() == 2
    assert not left_over()


def test_a_chain_that_diverges_is_an_error_side_by_side() -> None:
    net = EnergyNet(num_filters=4, image_size=(16, 16))
    with torch.no_grad():
        net.head.weight.fill_(torch.inf)
    with pytest.raises(DivergedError, match="finite chains"):
        PureEBM(steps=2).purify(DATA, energy=net)
    assert torch.get_num_threads() == 2


def test_a_caller_who_stops_leaves_nothing_behind() -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purified(DATA, runtime=Runtime(progress=stop))
    assert torch.get_num_threads() == 2
    assert not left_over()


def test_progress_comes_in_order_from_the_calling_thread() -> None:
    reports: list[tuple[int, str]] = []

    def note(progress: Progress) -> None:
        reports.append((progress.done, threading.current_thread().name))

    purified(DATA, runtime=Runtime(progress=note))
    caller = threading.current_thread().name
    assert reports == [(done, caller) for done in (64, 128, 192, 200)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_one_thread_in_any_company(dtype: torch.dtype) -> None:
    runtime = Runtime(dtype=dtype)
    done = PureEBM(steps=3).purify(DATA, energy=NET, runtime=runtime)
    torch.set_num_threads(1)
    alone = PureEBM(steps=3).purify(DATA, energy=NET, runtime=runtime)
    assert done.data.images.equal(alone.data.images)
    for name, column in done.columns.items():
        assert column.equal(alone.columns[name]), name
    turned = DATA.take(torch.arange(199, 60, -1))  # other tiles, in another order
    torch.set_num_threads(2)
    assert purified(turned, runtime=runtime).equal(done.data.images[61:].flip(0))


def test_other_methods_make_the_bytes_of_one_thread() -> None:
    denoiser = UNet(channels=(4, 8), num_blocks=1, seed=1)
    with torch.no_grad():  # the last layer begins at 0 and would hide the rest
        denoiser.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    data = DATA.take(torch.arange(140))
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        chain = Chain(energy_steps=2, denoiser_steps=2).purify(
            data, energy=NET, denoiser=denoiser
        )
        sorted_out = EnergyFilter(denoiser_steps=2).purify(
            data, energy=NET, denoiser=denoiser
        )
        redrawn = PureDDPM(steps=2).purify(data, denoiser=denoiser)
        curve = calibrate_steps(data.images[:70], energy=NET, grid=(1, 3))
        images = [each.data.images for each in (chain, sorted_out, redrawn)]
        found.append((torch.stack(images), sorted_out.columns["energy_before"], curve))
    assert found[0][0].equal(found[1][0])
    assert found[0][1].equal(found[1][1])
    assert found[0][2] == found[1][2]
