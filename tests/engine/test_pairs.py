"""Pairs are scored block by block as at once, and a stopped run goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bezoar.data import PairSource, open_pairs, shape_pairs, write_pairs
from bezoar.detect import PairSimilarity
from bezoar.engine import PairBlockDetector, detect_pair_source
from bezoar.errors import StorageError
from bezoar.metrics import scoring_copy
from bezoar.models import ClipResNet, DualEncoder, TinyClip, WordTokenizer
from bezoar.runtime import Progress, Runtime

DATA = shape_pairs(40)
WORDS = WordTokenizer.from_captions(DATA.captions)
METHOD = PairSimilarity()


def model(seed: int) -> DualEncoder:
    return TinyClip(WORDS, resolution=24, seed=seed)


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    write_pairs(DATA, tmp_path / "pairs")
    return open_pairs(tmp_path / "pairs")


class Stop(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_scores(
    source: PairSource, tmp_path: Path
) -> None:
    runtime = Runtime(block_size=16, dtype=torch.float32, work_dir=tmp_path / "run")
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.done >= 16 and progress.metrics:
            raise Stop

    call: dict[str, Any] = {"method": METHOD, "model": model(0), "reference": model(1)}
    with pytest.raises(Stop):
        detect_pair_source(source, runtime=replace(runtime, progress=stop), **call)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/blocks").glob("0*")}
    assert kept
    found, unreadable = detect_pair_source(source, runtime=runtime, **call)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert unreadable == ()
    want = METHOD.detect(
        DATA,
        model=model(0),
        reference=model(1),
        runtime=replace(runtime, work_dir=None),
    )
    assert found.ids == tuple(source.read()[0].ids)
    torch.testing.assert_close(found.scores, want.scores, atol=1e-5, rtol=0)
    with pytest.raises(StorageError, match="another"):
        detect_pair_source(source, runtime=runtime, **{**call, "model": model(2)})


class Elsewhere:
    """An engine that sends the work through a pickle, as that of Ray does."""

    def __init__(self) -> None:
        self.num_blocks = 0

    @contextmanager
    def running(
        self, work: Callable[[Any], Any], items: Iterator[Any], *, device: torch.device
    ) -> Iterator[Iterator[Any]]:
        from ray import cloudpickle

        def there(value: Any) -> Any:
            return cloudpickle.loads(cloudpickle.dumps(value))  # type: ignore[no-untyped-call]

        assert device.type == "cpu"
        sent = there(work)

        def done() -> Iterator[Any]:
            for item in items:
                self.num_blocks += 1
                yield there(sent(there(item)))

        yield done()


def test_an_engine_gives_the_same_scores(source: PairSource) -> None:
    pytest.importorskip("ray")
    here = Runtime(block_size=16, dtype=torch.float32)
    engine = Elsewhere()
    found = [
        detect_pair_source(
            source, method=METHOD, model=model(0), reference=model(1), runtime=runtime
        )[0]
        for runtime in (here, replace(here, engine=engine))
    ]
    assert engine.num_blocks == 3
    assert found[0].scores.equal(found[1].scores)
    assert isinstance(METHOD, PairBlockDetector)


def test_a_copy_to_score_with_is_made_once_and_folded() -> None:
    runtime = Runtime(dtype=torch.float32)
    given = ClipResNet(
        WORDS,
        resolution=32,
        layers=(1, 1, 1, 1),
        width=4,
        embedding=8,
        text_width=16,
        text_layers=1,
        text_heads=2,
        stem="small",
    ).train()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    fast = scoring_copy(given, DATA.images, runtime=runtime)
    assert fast is not given
    assert scoring_copy(fast, DATA.images, runtime=runtime) is fast
    assert given.training
    assert all(value.equal(before[name]) for name, value in given.state_dict().items())
    shown = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        want = given.eval().encode_images(shown)
        torch.testing.assert_close(fast.encode_images(shown), want, atol=1e-4, rtol=0)
