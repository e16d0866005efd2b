"""``bezoar purify``: the format that goes in comes out, purified."""

from pathlib import Path

import pytest

from bezoar.cli.runs import Run
from bezoar.data import ImageData, content_keys, open_source, write_images
from bezoar.models import EnergyNet, fingerprint, load_energy, save_energy
from bezoar.purify import PureEBM, ShortcutSqueezing
from bezoar.storage import load_purification_report, read_object, write_json
from tests.cli.conftest import Call


@pytest.mark.parametrize("form", ["class_folders", "parquet", "webdataset"])
def test_a_set_comes_out_in_its_own_format(
    bezoar: Call, data: ImageData, form: str
) -> None:
    write_images(data, Path("given"), format=form)  # type: ignore[arg-type]
    before = {p: p.read_bytes() for p in Path("given").rglob("*") if p.is_file()}
    done = bezoar("purify", "given", "--out", "new", "--json")
    assert done.code == 0
    source = open_source("new")
    assert source.format == open_source("given").format == form
    found, unreadable = source.read()
    given, _ = open_source("given").read()
    assert found.labels.equal(given.labels)
    assert found.images.equal(ShortcutSqueezing().purify(given).data.images)
    assert unreadable == ()
    assert done.json["num_written"] == len(data)
    assert load_purification_report(Path("new.run")).ids == given.ids
    assert {p: p.read_bytes() for p in before} == before
    assert not list(Path("new.run").glob("**/*.safetensors"))


def test_options_and_text(bezoar: Call, photos: Path) -> None:
    call = ("purify", photos, "shortcut-squeezing", "--squeeze", "depth")
    done = bezoar(*call, "--bits", "1", "--out", "new", "--run", "told")
    assert done.code == 0
    assert "24 images of 8x8 in new" in done.out
    assert "1 of 8 bits" in done.out
    assert "told/changes.parquet" in done.out
    assert open_source("new").read()[0].images.unique().tolist() == [0, 128]


def test_unreadable_files_are_listed_and_left_out(bezoar: Call, photos: Path) -> None:
    broken = next(photos.rglob("*.png"))
    broken.write_bytes(b"no image")
    done = bezoar("purify", photos, "--out", "new")
    assert done.code == 0
    assert "unreadable  1, left out" in done.out
    assert broken.name in Path("new.run/unreadable.csv").read_text()
    assert open_source("new").num_images == 23


def test_a_killed_run_goes_on(
    bezoar: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("purify", photos, "--out", "new", "--block-size", "10")
    monkeypatch.setattr("bezoar.cli.cleaning.write_set", None)
    assert bezoar(*call).code == 2
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr("bezoar.purify.shortcut_squeezing.jpeg", None)  # not called
    assert bezoar(*call).code == 0
    assert open_source("new").num_images == 24


def test_a_run_that_was_killed_after_its_set_was_written_ends_well(
    bezoar: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("purify", photos, "--out", "new")
    real = Run.write
    monkeypatch.setattr(
        Run, "write", lambda run, status: real(run, status.replace("done", "running"))
    )
    assert bezoar(*call).code == 0  # but for its last word
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    assert bezoar(*call).code == 0
    assert open_source("new").num_images == 24
    assert "--out" in bezoar(*call).sentence  # what is done is not done again
    told = read_object(Path("new.run/run.json"))
    write_json(Path("new.run/run.json"), {**told, "status": "running"})
    next(Path("new").rglob("*.png")).write_bytes(b"another")
    assert "something is already" in bezoar(*call).sentence


def test_what_makes_no_sense_is_one_sentence(bezoar: Call, photos: Path) -> None:
    Path("taken").mkdir()
    Path("taken/x").touch()
    assert "--out" in bezoar("purify", photos, "--out", "taken").sentence
    inside = bezoar("purify", photos, "--out", photos / "new")
    assert "outside the set" in inside.sentence
    assert bezoar("purify", photos, "--out", "a", "--quality", "0").code == 2
    Path("empty").mkdir()
    assert bezoar("purify", "empty", "--out", "a").code == 3


def energy(folder: Path) -> Path:
    path = folder / "net.safetensors"
    save_energy(EnergyNet(num_filters=2, image_size=(8, 8)), path)
    return path


def test_an_energy_is_named_and_used(
    bezoar: Call, photos: Path, data: ImageData, tmp_path: Path
) -> None:
    path = energy(tmp_path)
    call = ("purify", photos, "pure-ebm", "--steps", "2", "--block-size", "10")
    done = bezoar(*call, "--energy", path, "--out", "new")
    assert done.code == 0
    net = load_energy(path)
    expected = PureEBM(steps=2).purify(data, energy=net).data.images
    found, _ = open_source("new").read()
    order = [found.ids.index(id_) for id_ in sorted(found.ids)]
    shown = {content_keys(found.images[i : i + 1])[0] for i in order}
    assert shown == set(content_keys(expected))
    report = load_purification_report(Path("new.run"))
    assert report.provenance.settings["energy"] == fingerprint(net)


def test_an_energy_without_use_is_refused(bezoar: Call, photos: Path) -> None:
    done = bezoar("purify", photos, "--energy", "cifar10-nf32", "--out", "new")
    assert done.code == 2
    assert "leave it out" in done.sentence


def test_a_method_without_its_network_is_refused(bezoar: Call, photos: Path) -> None:
    done = bezoar("purify", photos, "pure-ddpm", "--out", "new")
    assert done.code == 2
    assert "expected --denoiser" in done.sentence


TINY = ("--width", "4", "--latent-width", "8", "--epochs", "2", "--batch-size", "8")


def test_dvae_goes_on_from_its_last_epoch_and_leaves_its_networks(
    bezoar: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("purify", photos, "dvae", "--out", "new", *TINY)
    monkeypatch.setattr("bezoar.cli.cleaning.write_set", None)
    assert bezoar(*call).code == 2
    kept = sorted(p.name for p in Path("new.run").glob("*.training.safetensors"))
    assert kept == ["fine.training.safetensors", "rough.training.safetensors"]
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr("bezoar.train.vae._epoch", None)  # not called again
    done = bezoar(*call)
    assert done.code == 0
    assert "24 images passed 2 limited autoencoders" in done.out
    assert "new.run/fine.safetensors" in done.out
    assert not list(Path("new.run").glob("*.training.safetensors"))
    assert open_source("new").num_images == 24


def test_dvae_asks_for_labels(bezoar: Call, photos: Path) -> None:
    flat = photos.parent / "flat"
    flat.mkdir()
    for path in photos.rglob("*.png"):
        path.rename(flat / path.name)
    sentence = bezoar("purify", flat, "dvae", "--out", "new", *TINY).sentence
    assert "expected labelled images for D-VAE" in sentence
