"""Who works on the blocks, from the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bezoar.cli import spreading
from bezoar.cli.spreading import Spreading
from bezoar.engine import RayEngine
from tests.cli.conftest import FAST, Call


class Recorder:
    """An engine that works here, and tells what it was asked for."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}
        self.num_runs = 0

    def __call__(self, **settings: object) -> "Recorder":
        self.settings = settings
        return self

    @contextmanager
    def running(
        self, work: Callable[[Any], Any], items: Iterator[Any], *, device: object
    ) -> Iterator[Iterator[Any]]:
        assert str(device) == "cpu"
        self.num_runs += 1
        yield map(work, items)


def test_options_become_an_engine() -> None:
    asked = Spreading(engine="ray", address="auto", workers=3, gpus_per_worker=0.5)
    engine = asked.runtime(print).engine
    assert engine == RayEngine(address="auto", num_workers=3, gpus_per_worker=0.5)
    assert Spreading().runtime(print).engine is None


@pytest.mark.parametrize(
    "words", [("--workers", "2"), ("--address", "auto"), ("--gpus-per-worker", "0.5")]
)
def test_options_of_ray_ask_for_ray(
    bezoar: Call, photos: Path, model: Path, words: tuple[str, ...]
) -> None:
    answer = bezoar("detect", photos, "--model", model, *words)
    assert answer.code == 2
    assert "--engine ray beside --address" in answer.sentence


def test_all_verbs_over_blocks_use_the_engine(
    bezoar: Call, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recorder()
    monkeypatch.setattr(spreading, "RayEngine", engine)
    on = ("--engine", "ray", "--workers", "2", "--device", "cpu")
    answer = bezoar("detect", photos, "--model", model, *FAST, *on)
    assert (answer.code, engine.num_runs) == (0, 1)
    assert engine.settings["num_workers"] == 2
    answer = bezoar("purify", photos, "--out", "clean", *on)
    assert (answer.code, engine.num_runs) == (0, 2)
    quick = ("--epochs", "1", "--width", "4", "--latent-width", "8")
    answer = bezoar("purify", photos, "dvae", *quick, "--out", "learnt", *on)
    assert (answer.code, engine.num_runs) == (0, 4), answer.err  # a pass a stage
    answer = bezoar("detect", photos, "ac", "--model", model, "--out", "ac", *on)
    assert (answer.code, engine.num_runs) == (0, 5)


def test_methods_that_see_all_images_at_once_refuse_it(
    bezoar: Call, photos: Path
) -> None:
    on = ("--engine", "ray", "--device", "cpu")
    answer = bezoar("detect", photos, "li", "--out", "run", *on)
    assert answer.code == 2
    assert "which looks at all images at once" in answer.sentence
