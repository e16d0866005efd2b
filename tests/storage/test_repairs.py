from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bezoar.errors import InputError, ModelError, StorageError
from bezoar.models import Architecture, fingerprint, load_model
from bezoar.results import Provenance, Repair
from bezoar.storage import load_repair, read_object, save_repair, write_json

ARCHITECTURE = Architecture(
    name="convnet",
    num_classes=2,
    width=4,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
    class_names=("cat", "dög"),
    image_size=8,
)


def repair_of(model: nn.Module) -> Repair:
    return Repair(
        model=model,
        status="repaired",
        summary="Forgotten.",
        stop_reason="all rounds were done",
        history=({"round": 0.0, "loss": 0.1}, {"round": 1.0, "loss": 1 / 3}),
        kept=1,
        image_ids={"suspicious": ("a,b.png", "=x"), "trusted": ("ü.png",)},
        health=("one class suffers",),
        figures={"margin": 0.25},
        tables={"words": ({"word": "seven", "z": 4.5, "passes": True},)},
        seconds={"forget": 1.5},
        provenance=Provenance(
            method="unlearning",
            settings={"lr": 0.1, "layer": None},
            seed=3,
            seconds=1.5,
            forwards_per_image=20.0,
        ),
    )


def test_a_repair_comes_back_as_it_was(tmp_path: Path) -> None:
    repair = repair_of(ARCHITECTURE.build(seed=1))
    save_repair(repair, tmp_path / "run", extra={"model": "m"})
    found = load_repair(tmp_path / "run")
    for field in fields(Repair):
        if field.name != "model":
            assert getattr(found, field.name) == getattr(repair, field.name)
    assert fingerprint(found.model) == fingerprint(repair.model)
    assert not found.model.training
    loaded = load_model(str(tmp_path / "run"))
    assert loaded.class_names == ("cat", "dög")
    assert fingerprint(loaded) == fingerprint(repair.model)
    assert read_object(tmp_path / "run/report.json")["model"] == "m"


def test_a_network_of_another_library_needs_its_like(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    save_repair(repair_of(model), tmp_path)
    with pytest.raises(ModelError, match="give the one that was repaired"):
        load_repair(tmp_path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    before = fingerprint(other)
    found = load_repair(tmp_path, model=other)
    assert fingerprint(found.model) == fingerprint(model)
    assert fingerprint(other) == before


def test_nothing_found_and_no_images_come_back_too(tmp_path: Path) -> None:
    repair = replace(
        repair_of(ARCHITECTURE.build()), status="nothing found", image_ids={}
    )
    save_repair(repair, tmp_path)
    found = load_repair(tmp_path)
    assert not found.changed
    assert found.image_ids == {}


def test_a_network_of_another_run_and_odd_reports_are_refused(tmp_path: Path) -> None:
    save_repair(repair_of(ARCHITECTURE.build(seed=1)), tmp_path)
    report = read_object(tmp_path / "report.json")
    write_json(tmp_path / "report.json", {**report, "history": 3})
    with pytest.raises(StorageError, match="got another"):
        load_repair(tmp_path)
    write_json(tmp_path / "report.json", {**report, "model_blake2b": "0"})
    with pytest.raises(StorageError, match="do not belong together"):
        load_repair(tmp_path)
    with pytest.raises(InputError, match="status"):
        save_repair(repair_of(ARCHITECTURE.build()), tmp_path, extra={"status": 1})


def test_the_sets_tell_which_images_were_chosen() -> None:
    repair = repair_of(nn.Identity())
    assert repair.chosen("suspicious", ["=x", "y"]).tolist() == [True, False]
    assert repair.chosen("other", ["=x"]).tolist() == [False]
    assert repair.after is repair.history[1]
    assert isinstance(repair.chosen("trusted", []), torch.Tensor)
