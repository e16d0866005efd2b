"""A purifier that ranks looks at the whole source, whatever the blocks and workers."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import nn

from bezoar.data import ImageData, noise_images
from bezoar.engine import RANKING, PurifiedSource, purify_source
from bezoar.errors import InputError
from bezoar.models import EnergyNet, UNet
from bezoar.purify import EnergyFilter
from bezoar.purify.denoising import Denoising
from bezoar.runtime import Progress, Runtime
from tests.engine.conftest import MemorySource

METHOD = EnergyFilter(denoiser_steps=3)
ENERGY = EnergyNet(num_filters=4, image_size=(8, 8))
DENOISER = UNet(channels=(4, 8), num_blocks=1)
NETWORKS: dict[str, nn.Module] = {"energy": ENERGY, "denoiser": DENOISER}
MakeSource = Callable[..., MemorySource]
T = TypeVar("T")
R = TypeVar("R")


class Stop(Exception):
    pass


def never(*_: object, **__: object) -> None:
    raise AssertionError


class Pickled:
    """An engine whose work and results travel as bytes, the last item first."""

    @contextmanager
    def running(
        self, work: Callable[[T], R], items: Iterator[T], *, device: torch.device
    ) -> Iterator[Iterator[R]]:
        assert device.type == "cpu"
        sent = pickle.dumps(work)
        yield (
            pickle.loads(pickle.dumps(pickle.loads(sent)(item)))
            for item in reversed(list(items))
        )


def ordered() -> ImageData:
    """Ten images, the most energetic ones last: no block of four is like the set."""
    data = noise_images(10)
    with torch.no_grad():
        return data.take(ENERGY(data.images.float() / 255).argsort())


def purified(
    source: MemorySource, folder: Path | None = None, **more: object
) -> PurifiedSource:
    runtime = Runtime(block_size=4, work_dir=folder, **more)  # type: ignore[arg-type]
    return purify_source(
        source,
        method=METHOD,
        image_size=(8, 8),
        networks=NETWORKS,
        runtime=runtime,
    )


def check(done: PurifiedSource, data: ImageData) -> None:
    whole = METHOD.purify(data, energy=ENERGY, denoiser=DENOISER)
    assert done.report.ids == data.ids
    assert done.report.columns["purified"].tolist() == [0] * 5 + [1] * 5
    for name, values in whole.columns.items():
        found = done.report.columns[name]
        torch.testing.assert_close(found, values, atol=1e-6, rtol=0)  # rounding
    for name, image in zip(data.ids, whole.data.images, strict=True):
        one = done.images(name)
        assert one is not None
        assert one.equal(image)
    assert done.report.summary == whole.summary
    settings = whole.provenance.settings
    assert done.report.provenance.settings == settings


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("engine", [None, Pickled()])
def test_the_whole_source_is_ranked(
    tmp_path: Path, make_source: MakeSource, on_disk: bool, engine: Pickled | None
) -> None:
    data, seen = ordered(), list[Progress]()
    done = purified(
        make_source(data),
        tmp_path if on_disk else None,
        engine=engine,
        progress=seen.append,
    )
    check(done, data)
    assert {p.stage for p in seen} == {"rank", "purify"}
    assert seen[-1].done == seen[-1].total == 10
    counts = [p.done for p in seen if p.stage == "purify"]
    assert counts == sorted(counts)


@pytest.mark.parametrize("stage", ["rank", "purify"])
def test_a_run_that_was_killed_goes_on(
    tmp_path: Path, make_source: MakeSource, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(progress: Progress) -> None:
        if (progress.stage, progress.done) == (stage, 8):
            raise Stop

    data = ordered()
    with pytest.raises(Stop):
        purified(make_source(data), tmp_path, progress=kill)
    if stage == "purify":  # then the ranking is over and is not made again
        monkeypatch.setattr(EnergyFilter, "score", never)
        assert len(list((tmp_path / RANKING / "blocks").glob("*.parquet"))) == 3
    again = make_source(data)
    check(purified(again, tmp_path), data)
    assert 0 < len(again.decoded) < (6 if stage == "rank" else 3)


def test_unreadable_images_are_left_out_of_the_ranking(source: MemorySource) -> None:
    good = [i for i, name in enumerate(source.data.ids) if name not in source.broken]
    kept = source.data.take(torch.tensor(good))
    whole = METHOD.purify(kept, energy=ENERGY, denoiser=DENOISER)
    done = purified(source)
    assert done.report.ids == kept.ids
    assert done.report.columns["purified"].equal(whole.columns["purified"])
    assert {u.id for u in done.unreadable} == set(source.broken)


def test_what_purified_nothing_is_told_of_the_whole_source(
    make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Denoising, "walk", lambda _, states, **__: states)
    with pytest.raises(InputError, match="got all 5 as they were"):
        purified(make_source(ordered()))
    few = replace(METHOD, purify_rate=0.01)
    with pytest.raises(InputError, match="raise purify_rate"):
        purify_source(
            make_source(ordered()), method=few, image_size=(8, 8), networks=NETWORKS
        )
