"""Diagnoses on disk."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar.errors import InputError, StorageError
from bezoar.results import Diagnosis, Provenance
from bezoar.storage import load_diagnosis, read_object, save_diagnosis


def diagnosis() -> Diagnosis:
    generator = torch.Generator().manual_seed(0)
    return Diagnosis(
        status="found",
        summary="A small patch was found.",
        score=3.0,
        area=math.exp(-3.0),
        threshold=0.1,
        cosine=0.995,
        mask=torch.rand(6, 5, generator=generator),
        pattern=torch.rand(3, 6, 5, generator=generator),
        restarts=({"area": 0.05, "cosine": 0.995}, {"area": 1.0, "cosine": math.nan}),
        provenance=Provenance(
            method="m", settings={"steps": 3}, seed=1, seconds=2, forwards_per_image=4
        ),
        reference_areas=(0.4, 0.5),
        p_value=1 / 3,
        limits=("one", "two"),
    )


def test_a_diagnosis_comes_back_as_it_was(tmp_path: Path) -> None:
    was = diagnosis()
    save_diagnosis(was, tmp_path / "d", extra={"encoder": "runs/e"})
    now = load_diagnosis(tmp_path / "d")
    assert now.mask.equal(was.mask)
    assert now.pattern.equal(was.pattern)
    assert math.isnan(now.restarts[1]["cosine"])
    same = replace(now, mask=was.mask, pattern=was.pattern, restarts=was.restarts)
    assert vars(same) == vars(was)
    assert read_object(tmp_path / "d" / "diagnosis.json")["encoder"] == "runs/e"
    assert (tmp_path / "d" / "mask.png").read_bytes()[1:4] == b"PNG"


def test_damage_and_taken_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="area"):
        save_diagnosis(diagnosis(), tmp_path / "d", extra={"area": 1})
    with pytest.raises(StorageError):
        load_diagnosis(tmp_path / "d")
    save_diagnosis(diagnosis(), tmp_path / "d")
    (tmp_path / "d" / "patch.safetensors").write_bytes(b"no")
    with pytest.raises(StorageError, match="diagnose again"):
        load_diagnosis(tmp_path / "d")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another"):
        save_diagnosis(diagnosis(), tmp_path / "file" / "d")
