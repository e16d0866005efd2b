"""Several detectors on one source: one table, one score, stated weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bezoar.data import noise_images
from bezoar.detect import ActivationClustering, SpectralSignatures, Strip
from bezoar.engine import Detector, detect_together
from bezoar.engine.memory import MemoryBlocks
from bezoar.engine.together import side_by_side, weights_of
from bezoar.errors import InputError
from bezoar.metrics.combination import combine, rank_shares
from bezoar.models import convnet
from bezoar.runtime import Runtime
from tests.engine.conftest import MemorySource

METHODS: dict[str, Detector] = {
    "ss": SpectralSignatures(),
    "ac": ActivationClustering(reduce="none"),
    "strip": Strip(num_overlays=3),
}


def net() -> nn.Module:
    return convnet(2, width=4)


def test_memory_and_source_give_one_table(
    tmp_path: Path, make_source: Callable[..., MemorySource]
) -> None:
    data = noise_images(10)
    plain, _ = detect_together(data, methods=METHODS, model=net())
    source = make_source(data)
    runtime = Runtime(block_size=4, work_dir=tmp_path)
    kept, unreadable = detect_together(
        source, methods=METHODS, model=net(), image_size=(8, 8), runtime=runtime
    )
    assert unreadable == ()
    assert kept.combined.scores.equal(plain.combined.scores)
    # once for the features of two methods, once for the overlays, once for STRIP
    assert source.decoded == [0, 1, 2] * 3
    columns = plain.combined.columns
    for name, method in METHODS.items():
        assert columns[f"{name}_score"].equal(plain.detections[name].scores)
        assert columns[f"{name}_rank"].long().equal(plain.detections[name].ranks)
        assert plain.detections[name].provenance.settings["threshold"] == "auto"
        assert type(method).__name__ in repr(method)
    assert sum(plain.weights.values()) == pytest.approx(1)
    assert plain.combined.provenance.settings["weights"] == plain.weights


def test_the_first_method_leads_unless_weights_are_given() -> None:
    panel, _ = detect_together(noise_images(9), methods=METHODS, model=net())
    assert panel.weights == {"ss": 0.9, "ac": 0.05, "strip": 0.05}
    assert panel.combined.verdict.status == panel.detections["ss"].verdict.status
    equal = dict.fromkeys(METHODS, 1.0)
    panel, _ = detect_together(
        noise_images(9), methods=METHODS, model=net(), weights=equal
    )
    shares = [rank_shares(f.scores) for f in panel.detections.values()]
    torch.testing.assert_close(panel.combined.scores, torch.stack(shares).mean(0))
    assert weights_of(["cd"]) == {"cd": 1.0}


def test_combining_is_a_weighted_mean_of_ranks() -> None:
    scores = {"a": torch.tensor([0.0, 9.0, 1.0]), "b": torch.tensor([3.0, 2.0, 1.0])}
    found = combine(scores, {"a": 1.0, "b": 1.0})
    assert found.tolist() == [0.5, 0.75, 0.25]
    assert combine(scores, {"a": 1.0, "b": 0.0}).tolist() == [0.0, 1.0, 0.5]
    for wrong in ({"a": 1.0}, {"a": 1.0, "b": -1.0}, {"a": 0.0, "b": 0.0}):
        with pytest.raises(InputError, match="a weight of at least 0 for each of a, b"):
            combine(scores, wrong)


def test_what_does_not_fit_together_is_refused() -> None:
    panel, _ = detect_together(noise_images(9), methods=METHODS, model=net())
    other = replace(panel.detections["ac"], ids=tuple("abcdefghi"))
    with pytest.raises(InputError, match="of the same images, got others by ac"):
        side_by_side({**panel.detections, "ac": other}, settings={}, seed=0, seconds=0)
    with pytest.raises(InputError, match="expected methods and an image size"):
        detect_together(noise_images(9), methods={}, model=net())
    with pytest.raises(InputError, match="resize the images first"):
        next(MemoryBlocks(data=noise_images(2)).blocks(2, image_size=(4, 4)))
