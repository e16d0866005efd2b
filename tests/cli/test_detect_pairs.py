"""``bezoar detect`` on pairs: a ranking, streamed or of all pairs together."""

from pathlib import Path

import torch

from bezoar.data import open_pairs
from bezoar.detect import PairSimilarity
from bezoar.models import load_dual_encoder
from bezoar.storage import load_detection, read_object
from tests.cli.conftest import Call
from tests.cli.test_repair_pairs import clips, pairs

__all__ = ["clips", "pairs"]  # fixtures


def test_pairs_are_ranked_block_by_block_as_at_once(
    bezoar: Call, pairs: Path, clips: tuple[Path, Path]
) -> None:
    suspect, base = clips
    (pairs / "images/00000007.png").write_bytes(b"no image")
    call = ("detect", pairs, "pair-similarity", "--model", suspect)
    answer = bezoar(*call, "--reference", base, "--block-size", "50")
    assert answer.code == 0, answer.err
    found = load_detection(Path("bezoar-run"))
    data, unreadable = open_pairs(pairs).read()
    assert [u.id for u in unreadable] == ["shape/00007"]
    models = (load_dual_encoder(str(place)) for place in clips)
    want = PairSimilarity().detect(data, model=next(models), reference=next(models))
    assert found.ids == want.ids == data.ids
    torch.testing.assert_close(found.scores, want.scores, atol=1e-4, rtol=0)
    assert read_object(Path("bezoar-run/run.json"))["status"] == "done"
    assert Path("bezoar-run/report.html").exists()
    again = bezoar(*call, "--json")  # another run: without a reference
    assert again.code == 2
    assert "a new folder, or this run's own" in again.sentence


def test_what_is_asked_for_in_vain_is_told(
    bezoar: Call, pairs: Path, photos: Path, clips: tuple[Path, Path]
) -> None:
    suspect, base = clips
    call = ("detect", pairs, "local-density", "--model", suspect)
    answer = bezoar(*call, "--reference", base)
    assert answer.code == 2
    assert "no --reference for local-density" in answer.sentence
    answer = bezoar("detect", photos, "pair-similarity", "--model", suspect)
    assert answer.code == 2
    assert "images with captions" in answer.sentence
