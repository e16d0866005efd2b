"""The whole chain: what it finds, writes and leaves alone, and how it goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bezoar import open_source
from bezoar.data import content_keys, noise_images, write_images
from bezoar.detect import ActivationClustering, EncoderInversion
from bezoar.errors import EmptyError, InputError, StorageError
from bezoar.guarding import STEPS, Guard, Guarded, Tools, guard
from bezoar.models import (
    Architecture,
    SimCLR,
    convnet,
    load_encoder,
    load_model,
    save_encoder,
    simclr,
)
from bezoar.purify import ShortcutSqueezing
from bezoar.repair import LipschitzPruning
from bezoar.report import Decisions, read_report
from bezoar.results import Provenance, Screening
from bezoar.runtime import Progress, Runtime
from bezoar.storage import load_detection, read_object, read_table
from bezoar.train import Training
from tests.guarding.conftest import TOOLS, Drill, digits

QUICK = Tools(
    detector=ActivationClustering(),
    architecture=Architecture(name="convnet", num_classes=2, width=4),
    training=Training(epochs=2, batch_size=8),
    final_training=Training(epochs=1, batch_size=8),
)


SHORT = EncoderInversion(
    num_windows=0,
    steps=5,
    num_restarts=1,
    batch_size=8,
    cosine_target=0.95,
    threshold=1e-6,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def statuses(guarded: Guarded) -> dict[str, str]:
    return {step.name: step.status for step in guarded.steps}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(noise_images(24), tmp_path / "photos", format="class_folders")
    return tmp_path / "photos"


Call = Callable[..., Guarded]


@pytest.fixture
def call(photos: Path, tmp_path: Path) -> Call:
    """Guard two dozen images of noise, quickly."""

    def run(**options: object) -> Guarded:
        given = {"out": tmp_path / "run", "tools": QUICK, "skip": ["screen", "report"]}
        return guard(photos, **(given | options))  # type: ignore[arg-type]

    return run


@pytest.mark.slow
def test_poison_is_found_dropped_and_forgotten(drill: Drill, guarded: Guarded) -> None:
    assert guarded.status == "found"
    assert guarded.exit_code == 1
    assert list(statuses(guarded)) == list(STEPS)
    assert guarded.before is not None
    assert guarded.after is not None
    assert guarded.before.attack_success_rate is not None
    assert guarded.after.attack_success_rate is not None
    assert guarded.before.attack_success_rate > 0.95
    assert guarded.after.attack_success_rate < 0.05
    assert guarded.after.clean_accuracy > 0.9
    bad = set(content_keys(drill.poisoned.data.images[drill.poisoned.is_poison]))
    assert guarded.clean is not None
    kept, _ = open_source(guarded.clean).read()
    assert len(bad & set(content_keys(kept.images))) <= 0.1 * len(bad)
    assert len(kept) + len(guarded.plan.dropped) == len(drill.poisoned.data)


@pytest.mark.slow
def test_kept_files_are_the_same_bytes_and_the_set_is_left_alone(
    drill: Drill, guarded: Guarded
) -> None:
    assert guarded.clean is not None
    whole, part = contents(drill.data), contents(guarded.clean)
    assert part.items() <= whole.items()
    assert whole.keys() - part.keys() == guarded.plan.dropped
    assert len(whole) == len(drill.poisoned.data)


@pytest.mark.slow
def test_what_is_written_can_be_used_by_every_verb(guarded: Guarded) -> None:
    found = load_detection(guarded.folder)
    assert set(found.ids) >= guarded.plan.dropped
    assert guarded.model is not None
    load_model(str(guarded.model))
    report = read_report(guarded.folder)
    assert report["verdict"]["status"] == "found"
    kinds = [section["type"] for section in report["sections"]]
    assert {"steps", "card", "gallery", "facts"} <= set(kinds)
    page = (guarded.folder / "report.html").read_text()
    assert "guard" in page
    rows = read_table(guarded.folder / "actions.parquet").columns
    assert set(rows["id"]) == guarded.plan.dropped
    told = read_object(guarded.folder / "run.json")
    assert told["status"] == "done"
    assert not (guarded.folder / "work").exists()


@pytest.mark.slow
def test_a_second_call_does_nothing_twice(drill: Drill, guarded: Guarded) -> None:
    was = contents(guarded.folder)
    again = drill.guard(drill.root / "run")
    done = {name for name, status in statuses(again).items() if status == "done"}
    assert done == {"decide", "report"}  # both are cheap, and tell of this call
    assert again.after == guarded.after
    assert again.plan.dropped == guarded.plan.dropped
    changed = {k for k, v in contents(guarded.folder).items() if was.get(k) != v}
    assert changed <= {"steps.json", "run.json", "report.json", "report.html"}


@pytest.mark.slow
def test_decisions_change_the_set_and_what_follows_alone(
    drill: Drill, guarded: Guarded, tmp_path: Path
) -> None:
    subprocess.run(["cp", "-r", drill.root / "run", tmp_path / "run"], check=True)
    spared = min(guarded.plan.dropped)
    assert guarded.clean is not None
    condemned = min(contents(guarded.clean))
    told = Decisions(by_id={spared: "keep", condemned: "drop"})
    again = drill.guard(tmp_path / "run", decisions=told, skip=["screen", "report"])
    assert again.clean is not None
    now = contents(again.clean)
    assert spared in now
    assert condemned not in now
    status = statuses(again)
    assert [status[n] for n in ("learn", "detect")] == ["restored", "restored"]
    assert [status[n] for n in ("write", "train")] == ["done", "done"]
    other = Decisions(by_id={"no/such.png": "drop"})
    with pytest.raises(InputError, match=r"such\.png"):
        drill.guard(tmp_path / "run", decisions=other)
    with pytest.raises(InputError, match="another one"):
        drill.guard(tmp_path / "run", decisions=replace(told, data="other"))


@pytest.mark.slow
def test_a_clean_set_is_left_as_it_is(tmp_path: Path) -> None:
    write_images(digits(0, 900), tmp_path / "clean", format="class_folders")
    was = contents(tmp_path / "clean")
    done = guard(tmp_path / "clean", out=tmp_path / "run", tools=TOOLS)
    assert done.status == "nothing found"
    assert done.exit_code == 0
    assert done.clean is None
    assert done.detection is not None
    assert not done.detection.flagged.any()
    assert not (tmp_path / "run" / "clean").exists()
    assert contents(tmp_path / "clean") == was
    assert "Nothing was changed" in done.summary


@pytest.mark.parametrize("stage", ["verify", "train", "represent"])
def test_an_interrupted_run_goes_on_where_it_was(call: Call, stage: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    whole = call()
    with pytest.raises(KeyboardInterrupt):
        call(out=whole.folder.with_name("cut"), runtime=Runtime(progress=stop))
    cut = whole.folder.with_name("cut")
    assert read_object(cut / "run.json")["status"] == "failed"
    again = call(out=cut)
    names = ["verify", "learn", "detect"]
    before = names[: ["verify", "train", "represent"].index(stage)]
    assert [n for n in names if statuses(again)[n] == "restored"] == before
    assert whole.detection is not None
    assert again.detection is not None
    assert again.detection.scores.equal(whole.detection.scores)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(
    photos: Path, call: Call, tmp_path: Path
) -> None:
    code = (
        "import os, signal\n"
        "from tests.guarding.test_chain import *\n"
        "def die(p):\n"
        "    if p.stage == 'represent': os.kill(os.getpid(), signal.SIGKILL)\n"
        f"guard({str(photos)!r}, out={str(tmp_path / 'run')!r}, tools=QUICK,\n"
        "    skip=['screen'], runtime=Runtime(progress=die))\n"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    again = call()
    status = statuses(again)
    assert [status[n] for n in ("verify", "learn", "detect")] == [
        "restored",
        "restored",
        "done",
    ]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_a_changed_setting_is_done_again_and_nothing_else(call: Call) -> None:
    call()
    other = replace(QUICK, detector=ActivationClustering(size_share=0.2))
    status = statuses(call(tools=other))
    assert (status["learn"], status["detect"]) == ("restored", "done")
    longer = replace(QUICK, training=Training(epochs=1, batch_size=8))
    assert statuses(call(tools=longer))["learn"] == "done"


def test_a_step_that_fails_or_is_skipped_does_not_stop_the_rest(
    call: Call, tmp_path: Path
) -> None:
    bad = replace(QUICK, training=Training(lr=1e30, batch_size=8))
    done = call(tools=bad, skip=["screen"])
    status = statuses(done)
    assert status["learn"] == "failed"
    assert status["detect"] == "cannot run"
    assert status["report"] == "done"
    assert done.status == "not looked"
    assert done.exit_code == 2
    failed = read_report(tmp_path / "run")["sections"][1]["rows"][2]
    assert "finite loss" in failed["reason"]
    assert statuses(call())["learn"] == "done"  # a failure is not taken up
    skipped = call(skip=["screen", "detect", "verify"], out=tmp_path / "other")
    assert skipped.exit_code == 0
    assert statuses(skipped)["detect"] == "skipped"
    with pytest.raises(InputError, match="purfy"):
        call(skip=["purfy"])


def test_images_without_labels_need_a_model_or_an_encoder(tmp_path: Path) -> None:
    data = replace(noise_images(24), labels=torch.full((24,), -1), class_names=())
    write_images(data, tmp_path / "flat", format="flat_folder")
    alone = guard(tmp_path / "flat", out=tmp_path / "alone")
    assert alone.status == "not looked"
    assert alone.exit_code == 2
    assert statuses(alone)["verify"] == "done"
    reasons = {step.name: step.reason for step in alone.steps}
    assert "--encoder" in reasons["detect"]
    ranked = guard(
        tmp_path / "flat",
        out=tmp_path / "e",
        encoder=convnet(4, width=4),
        tools=Tools(diagnosis=SHORT),
    )
    assert ranked.status == "ranking"
    assert ranked.exit_code == 0
    assert ranked.detection is not None
    assert len(ranked.detection.ids) == 24
    assert "mimic" in {step.name: step.reason for step in ranked.steps}["repair"]


def test_an_encoder_is_repaired_where_a_repair_is_named(
    photos: Path, tmp_path: Path
) -> None:
    encoder = convnet(4, width=4)
    was = {name: value.clone() for name, value in encoder.state_dict().items()}
    tools = Tools(repair=LipschitzPruning(), diagnosis=SHORT)
    done = guard(
        photos, out=tmp_path / "run", encoder=encoder, tools=tools, skip=["report"]
    )
    assert done.repair is not None
    assert done.repair.provenance.method == "lipschitz-pruning"
    assert (tmp_path / "run" / "repaired" / "model.safetensors").exists()
    assert all(encoder.state_dict()[name].equal(value) for name, value in was.items())


def test_an_encoder_on_disk_is_diagnosed_and_the_patch_is_on_the_page(
    photos: Path, tmp_path: Path
) -> None:
    save_encoder(simclr("tiny", seed=3), tmp_path / "encoder")
    spec, out = str(tmp_path / "encoder"), tmp_path / "run"
    tools = Tools(diagnosis=replace(SHORT, threshold=0.999))
    found = guard(photos, out=out, encoder=spec, tools=tools)
    assert found.diagnosis is not None
    assert found.diagnosis.found
    assert found.status == "look"
    assert not found.failed, found.failed
    assert found.exit_code == 0
    reasons = {step.name: step.reason for step in found.steps}
    assert reasons["diagnose"] == found.diagnosis.summary
    assert "the diagnosis speaks for it" in reasons["repair"]
    titles = [section.get("title", "") for section in read_report(out)["sections"]]
    assert any("look alike to the encoder" in title for title in titles)
    again = guard(photos, out=out, encoder=spec, tools=tools)
    assert statuses(again)["diagnose"] == "restored"
    assert again.diagnosis is not None
    assert again.diagnosis.mask.equal(found.diagnosis.mask)
    tools = replace(tools, diagnosis=SHORT, repair=LipschitzPruning())
    mended = guard(photos, out=out, encoder=spec, tools=tools)
    assert mended.status == "ranking"
    assert statuses(mended)["diagnose"] == "done"
    assert isinstance(load_encoder(str(out / "repaired")), SimCLR)


def test_a_set_made_unlearnable_is_purified(
    call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provenance = Provenance(
        method="s", settings={}, seed=0, seconds=0, forwards_per_image=0
    )
    found = Screening(
        status="found",
        summary="The set looks made unlearnable.",
        given={"network": 0.9},
        treated={"network": 0.3},
        alarms={"network": 0.15},
        num_images=24,
        provenance=provenance,
    )
    monkeypatch.setattr(
        "bezoar.guarding.screening.screen_unlearnable", lambda *_a, **_k: found
    )
    was = contents(photos)
    done = call(skip=[])
    assert done.status == "found"
    assert "pictures" in {s["type"] for s in read_report(done.folder)["sections"]}
    assert statuses(done)["purify"] == "done"
    assert done.clean is not None
    given, _ = open_source(photos).read()
    now, _ = open_source(done.clean).read()
    assert now.images.equal(ShortcutSqueezing().purify(given).data.images)
    assert contents(photos) == was
    again = call(skip=["report"])
    assert statuses(again)["purify"] == statuses(again)["write"] == "restored"
    kept = call(skip=["report"], rule=Guard(protected="keep"))
    assert kept.status == "found"
    assert kept.clean is None


@pytest.mark.slow
def test_a_given_classifier_is_repaired(drill: Drill, guarded: Guarded) -> None:
    victim = drill.root / "run" / "model.safetensors"
    was = victim.read_bytes()
    done = drill.guard(drill.root / "given", model=str(victim), tools=TOOLS)
    status = statuses(done)
    assert status["learn"] == status["train"] == "skipped"
    assert status["repair"] == "done"
    assert done.repair is not None
    assert done.repair.changed
    assert done.model == drill.root / "given" / "repaired"
    assert done.after is not None
    assert done.after.attack_success_rate is not None
    assert done.after.attack_success_rate < 0.1
    assert victim.read_bytes() == was
    assert guarded.model != done.model


def test_a_folder_of_something_else_is_refused(
    call: Call, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="where something else is"):
        call(out=tmp_path / "mine")
    with pytest.raises(InputError, match="outside the set"):
        call(out=photos / "run")
    call()
    (photos / "odd" / "more.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    with pytest.raises(StorageError, match="has changed since"):
        call()
    with pytest.raises(InputError, match="two of them"):
        call(model=convnet(2), encoder=convnet(2))
    with pytest.raises(InputError, match="beside the attack"):
        call(attack="m.json")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "a" / "x.png").write_text("no image")
    with pytest.raises(EmptyError):
        guard(tmp_path / "empty", out=tmp_path / "e")


def test_the_account_can_be_read_by_programs(call: Call, tmp_path: Path) -> None:
    done = call()
    plain = json.loads((tmp_path / "run" / "steps.json").read_text())
    assert [row["name"] for row in plain["steps"]] == [s.name for s in done.steps]
    settings = read_object(tmp_path / "run" / "run.json")["settings"]
    assert isinstance(settings, dict)
    assert settings["detector"]["method"] == "ActivationClustering"
