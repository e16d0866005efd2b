"""Ray gives the files of a run in one process, also when workers and nodes are lost."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bezoar.data import ImageData, noise_images
from bezoar.detect import CognitiveDistillation
from bezoar.engine import (
    RayEngine,
    detect_source,
    purify_source,
    run_blocks,
)
from bezoar.engine.memory import MemoryBlocks
from bezoar.engine.ray_pool import _connected, _importable
from bezoar.engine.relay import OnDemand, Relay
from bezoar.errors import EngineError, InputError
from bezoar.models import load_model
from bezoar.purify import ShortcutSqueezing
from bezoar.results import Scores
from bezoar.runtime import Progress, Runtime

SIZE = (8, 8)
SOURCE = MemoryBlocks(data=noise_images(48, size=8))
METHOD = CognitiveDistillation(steps=3, l1_weight=0.01, threshold="review")
CPU = torch.device("cpu")
# A network of the user's own file, which no worker can import. The first worker that
# runs it dies.
FRAGILE = """
import os
import time
from pathlib import Path
import torch

class Fragile(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.home = os.getpid()
        self.flag = Path(__file__).with_name("flag")
        self.layer = torch.nn.Linear(192, 2)

    def forward(self, images):
        if os.getpid() != self.home:
            time.sleep(0.05)  # so that a node is lost while it works
            if not self.flag.exists():
                self.flag.touch()
                os._exit(1)
        return self.layer(images.flatten(1))

def net():
    torch.manual_seed(0)
    return Fragile()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": 80 << 20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, **small},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, **small)
    yield cluster
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


def files(folder: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".")}


def detected(folder: Path, model: torch.nn.Module, **given: Any) -> torch.Tensor:
    runtime = Runtime(block_size=4, batch_size=4, work_dir=folder, **given)
    found, _ = detect_source(
        SOURCE, method=METHOD, model=model, image_size=SIZE, runtime=runtime
    )
    return found.scores


class Stop(Exception):
    pass


def stop_after(num_images: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.stage == "score" and progress.done >= num_images:
            raise Stop

    return stop


@pytest.mark.slow
def test_a_run_on_ray_is_a_run_in_one_process(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    model = load_model(f"{tmp_path / 'fragile.py'}:net")
    scores = detected(tmp_path / "local", model)
    expected = files(tmp_path / "local")
    assert len(expected) == 13  # 12 blocks, and the settings
    engine = RayEngine(address=cluster.address, num_workers=2)

    nodes = [node for node in cluster.worker_nodes]
    seen: list[Progress] = []

    def lose_a_node(progress: Progress) -> None:
        if progress.stage == "score" and progress.done == 16:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        stop_after(40)(progress)

    with suppress(Stop):
        detected(tmp_path / "a", model, engine=engine, progress=lose_a_node)
    assert (tmp_path / "flag").exists()  # a worker was lost,
    assert len(nodes) == 1  # and a node
    assert 7 <= len(files(tmp_path / "a")) < 13
    assert detected(tmp_path / "a", model).equal(scores)
    assert files(tmp_path / "a") == expected

    with suppress(Stop):
        detected(tmp_path / "b", model, progress=stop_after(32))
    assert 3 <= len(files(tmp_path / "b")) < 13
    seen.clear()
    found = detected(tmp_path / "b", model, engine=engine, progress=seen.append)
    assert found.equal(scores)
    assert files(tmp_path / "b") == expected
    assert (seen[-1].done, seen[-1].total) == (48, 48)

    for name, runtime in (("p", on(None)), ("q", on(engine))):
        purify_source(
            SOURCE,
            method=ShortcutSqueezing(squeeze="depth"),
            image_size=SIZE,
            runtime=replace(runtime, work_dir=tmp_path / name),
        )
    assert files(tmp_path / "p") == files(tmp_path / "q")
    assert len(files(tmp_path / "p")) == 24  # scores and images of 12 blocks

    one = on(replace(engine, num_workers=1))
    with pytest.raises(InputError, match="a work of no use"):
        run_blocks(SOURCE, fails, image_size=SIZE, key="", runtime=one)
    greedy = on(replace(engine, cpus_per_worker=9))
    with pytest.raises(EngineError, match="room for 9 cores and 0 GPUs of a worker"):
        run_blocks(SOURCE, fails, image_size=SIZE, key="", runtime=greedy)


def on(engine: RayEngine | None) -> Runtime:
    return Runtime(block_size=4, batch_size=4, engine=engine)


def fails(_: ImageData) -> Scores:
    raise InputError("a work of no use")


def test_nothing_is_started_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with RayEngine().running(str, iter(()), device=CPU) as results:
        assert list(results) == []


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        RayEngine().running(str, iter([1]), device=CPU) as results,
        pytest.raises(EngineError, match=r"run pip install 'bezoar\[ray\]'$"),
    ):
        next(results)


def test_an_address_where_nobody_is_is_one_sentence() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        nobody = ModuleType("ray")
        vars(nobody)["is_initialized"] = lambda: False
        with (
            pytest.raises(EngineError, match=f"a Ray cluster at '{address}', got none"),
            _connected(nobody, address),
        ):
            pass


@pytest.mark.parametrize(
    "setting",
    [
        {"num_workers": 0},
        {"cpus_per_worker": 0},
        {"gpus_per_worker": -0.5},
        {"retries": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected .*{next(iter(setting))}"):
        RayEngine(**setting)


def test_only_code_that_workers_lack_is_sent() -> None:
    assert _importable("bezoar.engine.local")
    assert not _importable("bezoar_model_mine")


def test_what_is_sent_to_a_worker_reports_to_nobody() -> None:
    relay = Relay(print, stage="score")
    runtime = Runtime(engine=RayEngine(), device=torch.device("cuda:1"))
    inside = relay.inside(replace(runtime, dtype=torch.float32))
    assert (inside.engine, inside.device) == (None, torch.device("cuda"))
    assert inside.progress == Runtime().progress
    here = relay.inside(Runtime(work_dir=Path()))
    assert (here.progress, here.work_dir) == (relay.within_block, None)


def test_what_is_sent_is_made_first() -> None:
    made: list[int] = []
    value = OnDemand(lambda: made.append(1))
    rebuild, arguments = value.__reduce__()
    assert made == [1]
    rebuild(*arguments)()
    value()
    assert made == [1]
