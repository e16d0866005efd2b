"""Pairs of images and captions: searched, forgotten, and written back without them."""

from pathlib import Path

import pytest
import torch

from bezoar.data import open_pairs, write_pairs
from bezoar.errors import InputError
from bezoar.guarding import Guarded, Tools, guard
from bezoar.models import convnet
from bezoar.report import read_report
from bezoar.runtime import Runtime
from tests.repair.pairs import Table, pairs
from tests.repair.test_ubt import QUICK


def guarded(folder: Path, out: Path, *, backdoor: bool) -> Guarded:
    return guard(
        folder,
        out=out,
        clip=Table(backdoor=backdoor),
        reference=Table(backdoor=False),
        tools=Tools(pair_repair=QUICK),
        runtime=Runtime(dtype=torch.float32),
    )


@pytest.mark.slow
def test_planted_pairs_are_dropped_and_forgotten(tmp_path: Path) -> None:
    data, is_planted = pairs()
    write_pairs(data, tmp_path / "set")
    done = guarded(tmp_path / "set", tmp_path / "run", backdoor=True)
    assert done.status == "found"
    assert done.exit_code == 1
    assert done.repair is not None
    assert done.repair.changed
    assert done.model == tmp_path / "run" / "repaired"
    planted = {i for i, bad in zip(data.ids, is_planted.tolist(), strict=True) if bad}
    assert 0 < len(done.plan.dropped) < len(data)
    assert done.plan.dropped <= planted
    assert done.clean is not None
    kept, _ = open_pairs(done.clean).read()
    assert set(kept.ids) == set(data.ids) - done.plan.dropped
    whole, _ = open_pairs(tmp_path / "set").read()
    captions = dict(zip(whole.ids, whole.captions, strict=True))
    assert kept.captions == tuple(captions[i] for i in kept.ids)
    assert done.verified is not None
    assert done.verified.captions[0][1] > 1
    titles = {section["title"] for section in read_report(done.folder)["sections"]}
    assert "Repeated captions" in titles
    again = guarded(tmp_path / "set", tmp_path / "run", backdoor=True)
    assert {s.name: s.status for s in again.steps}["detect"] == "restored"
    assert again.plan.dropped == done.plan.dropped


@pytest.mark.slow
def test_sound_pairs_are_left_as_they_are(tmp_path: Path) -> None:
    data, _ = pairs(planted=0)
    write_pairs(data, tmp_path / "set")
    done = guarded(tmp_path / "set", tmp_path / "run", backdoor=False)
    assert done.status == "nothing found"
    assert done.exit_code == 0
    assert done.clean is None
    assert done.model is None


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    clip = Table(backdoor=False)
    with pytest.raises(InputError, match="two of them"):
        guard(tmp_path, out=tmp_path / "r", clip=clip, encoder=convnet(2))
    with pytest.raises(InputError, match="beside the reference"):
        guard(tmp_path, out=tmp_path / "r", reference=clip)
