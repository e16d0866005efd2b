"""The recipe of scale, on a set that takes a second."""

import subprocess
from pathlib import Path

import pytest

from bezoar.bench.recipe import Claims
from bezoar.data import open_source
from bezoar.errors import BezoarError
from recipes.mini import scale


def test_a_set_has_the_images_asked_for(tmp_path: Path) -> None:
    scale.make(tmp_path / "set", 1203)
    source = open_source(tmp_path / "set")
    assert (source.format, source.num_images) == ("parquet", 1203)
    data, unreadable = source.read()
    assert unreadable == ()
    assert len(data.images.flatten(1).unique(dim=0)) == scale.FILES
    assert len(set(data.ids)) == 1203
    found = scale.one("local", tmp_path)
    assert found["mib"] > 100
    assert found["seconds"] > 0 < found["rate"]


def test_every_claim_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(kind: str, size: int) -> dict[str, float]:
        rate = {"local": 1000.0, "ray1": 100.0, "ray2": 130.0}[kind]
        return {"seconds": size / rate, "rate": rate, "mib": 400 + size / 1e4}

    monkeypatch.setattr(scale, "measured", measured)
    claims = Claims()
    scale.body(claims, lambda _: None)
    assert all(row.passed for row in claims.rows)
    gated = {row.name: row.value for row in claims.rows if row.gate != "reported"}
    assert gated["peak MiB, largest set"] == 500
    assert gated["rate, largest to a tenth"] == 1
    assert gated.get("two workers of Ray, to one", 1.3) == 1.3


def test_a_process_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess((), 1, stdout="", stderr="no memory\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        BezoarError, match=r"10 images to be scored, got \['no memory'\]"
    ):
        scale.measured("local", 10)
