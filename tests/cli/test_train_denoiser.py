"""``bezoar train-denoiser``: images to a network that ``purify`` takes."""

from pathlib import Path

import pytest
import torch

from bezoar import EnergyFilter, PureDDPM
from bezoar.data import ImageData, noise_images, open_source, write_images
from bezoar.models import EnergyNet, fingerprint, load_denoiser, save_energy
from bezoar.storage import load_purification_report
from tests.cli.conftest import Call

FEW = (
    *("--channels", "4", "8", "--num-blocks", "1", "--num-levels", "9"),
    *("--epochs", "2", "--batch-size", "8"),
)


@pytest.fixture
def given(tmp_path: Path) -> ImageData:
    write_images(noise_images(20), tmp_path / "photos", format="class_folders")
    return open_source(str(tmp_path / "photos")).read()[0]


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def in_order(data: ImageData, like: ImageData) -> torch.Tensor:
    place = {name: i for i, name in enumerate(data.ids)}
    return data.images[torch.tensor([place[name] for name in like.ids])]


def test_a_network_is_trained_and_denoises(bezoar: Call, given: ImageData) -> None:
    done = bezoar("train-denoiser", "photos", *FEW, "--seed", "4", "--json")
    assert done.code == 0
    net = load_denoiser("denoiser.safetensors")
    assert (net.channels, net.num_levels, net.num_blocks) == ((4, 8), 9, 1)
    assert done.json["num_images"] == net.card["num_images"] == 20
    assert (net.card["name"], net.card["seed"]) == ("denoiser", 4)
    assert done.json["training"] == net.card["settings"]
    assert done.json["epochs"] == 2
    losses = net.card["losses"]
    assert isinstance(losses, list)
    assert done.json["loss"] == losses[-1]
    names = sorted(p.name for p in Path().iterdir())
    assert names == ["denoiser.json", "denoiser.safetensors", "photos"]

    call = ("purify", "photos", "pure-ddpm", "--steps", "9", "--block-size", "6")
    assert bezoar(*call, "--denoiser", "denoiser.safetensors", "--out", "new").code == 0
    found, _ = open_source("new").read()
    expected = PureDDPM(steps=9).purify(given, denoiser=net).data.images
    assert in_order(found, given).equal(expected)
    sentence = bezoar(
        *("purify", "photos", "pure-ddpm", "--steps", "10", "--out", "more"),
        *("--denoiser", "denoiser.safetensors"),
    ).sentence
    assert "at most 9 steps" in sentence


def test_the_filter_ranks_the_whole_set_and_not_a_block(
    bezoar: Call, given: ImageData
) -> None:
    assert bezoar("train-denoiser", "photos", *FEW).code == 0
    energy = EnergyNet(num_filters=2, image_size=(8, 8))
    save_energy(energy, Path("energy.safetensors"))
    done = bezoar(
        *("purify", "photos", "energy-filter", "--denoiser-steps", "5"),
        *("--purify-rate", "0.3", "--block-size", "4", "--out", "new"),
        *("--energy", "energy.safetensors", "--denoiser", "denoiser.safetensors"),
    )
    assert done.code == 0
    assert "6 of 20 images, those of the highest energy" in done.out
    net = load_denoiser("denoiser.safetensors")
    method = EnergyFilter(denoiser_steps=5, purify_rate=0.3)
    expected = method.purify(given, energy=energy, denoiser=net)
    found, _ = open_source("new").read()
    assert in_order(found, given).equal(expected.data.images)
    report = load_purification_report(Path("new.run"))
    assert report.columns["purified"].equal(expected.columns["purified"])
    by_block = report.columns["purified"].split(4)
    assert len({part.sum().item() for part in by_block}) > 1
    settings = report.provenance.settings
    assert settings["energy"] == fingerprint(energy)
    assert settings["denoiser"] == fingerprint(net)
    assert not (Path("new.run") / "ranking").exists()


def test_a_training_that_was_killed_goes_on(
    bezoar: Call, given: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(given) == 20
    assert bezoar("train-denoiser", "photos", *FEW, "--out", "a.safetensors").code == 0
    call = ("train-denoiser", "photos", *FEW, "--out", "b.safetensors")
    monkeypatch.setattr("bezoar.cli.train_denoiser.save_denoiser", killed)
    assert bezoar(*call).code == 130
    home, kept = Path.cwd(), list(Path(".b.training").glob("*.safetensors"))
    assert [p.name for p in kept] == ["denoiser.training.safetensors"]
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setattr("bezoar.train.denoiser._step", killed)  # not called again
    assert bezoar(*call).code == 0
    a, b = (load_denoiser(f"{name}.safetensors") for name in "ab")
    assert fingerprint(a) == fingerprint(b)
    assert not Path(".b.training").exists()


def test_the_text_tells_what_comes_next(bezoar: Call, given: ImageData) -> None:
    assert given.images.shape[2:] == (8, 8)
    done = bezoar("train-denoiser", "photos", *FEW, "--out", "mine.safetensors")
    assert done.code == 0
    assert "20 of 8x8 pixels" in done.out
    assert "purify SET pure-ddpm --denoiser mine.safetensors" in done.out


def test_what_makes_no_sense_is_refused_before_the_work(
    bezoar: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "safetensors" in bezoar("train-denoiser", "x", "--out", "net.pt").sentence
    monkeypatch.setenv("WORLD_SIZE", "2")
    sentence = bezoar("train-denoiser", "x").sentence
    assert "in one process, got 2; start it without torchrun" in sentence


def test_a_missing_denoiser_names_the_verb_that_trains_one(
    bezoar: Call, given: ImageData
) -> None:
    assert len(given) == 20
    for method in ("pure-ddpm", "chain", "energy-filter"):
        sentence = bezoar("purify", "photos", method, "--out", "new").sentence
        assert "expected --denoiser" in sentence
        assert "bezoar train-denoiser" in sentence
