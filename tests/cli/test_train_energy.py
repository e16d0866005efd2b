"""``bezoar train-energy``: images to a network that ``purify`` takes."""

from dataclasses import replace
from pathlib import Path

from bezoar import EnergyTraining, train_energy
from bezoar.data import noise_images, open_source, write_images
from bezoar.models import EnergyNet, fingerprint, load_energy, save_energy
from tests.cli.conftest import Call

FEW = (
    *("--num-filters", "2", "--patch-size", "1", "--num-updates", "3"),
    *("--batch-size", "8", "--chain-steps", "1", "--bank-size", "500"),
)


def test_a_network_is_trained_and_used(bezoar: Call) -> None:
    write_images(noise_images(20, size=16), Path("photos"), format="class_folders")
    done = bezoar("train-energy", "photos", *FEW, "--seed", "4", "--json")
    assert done.code == 0
    net = load_energy("energy.safetensors")
    assert (net.num_filters, net.image_size) == (2, (16, 16))
    assert net.card["updates"] == 3
    assert done.json["num_images"] == net.card["num_images"] == 20
    training = done.json["training"]
    assert isinstance(training, dict)
    assert training["bank_size"] == 20
    names = sorted(p.name for p in Path().iterdir())
    assert names == ["energy.json", "energy.safetensors", "photos"]
    call = ("purify", "photos", "pure-ebm", "--steps", "1")
    assert bezoar(*call, "--energy", "energy.safetensors", "--out", "new").code == 0


def test_the_text_tells_what_comes_next(bezoar: Call) -> None:
    write_images(noise_images(8, size=16), Path("photos"), format="class_folders")
    done = bezoar("train-energy", "photos", *FEW, "--out", "mine.safetensors")
    assert done.code == 0
    assert "--energy mine.safetensors" in done.out


def test_the_file_has_to_say_what_it_is(bezoar: Call) -> None:
    done = bezoar("train-energy", "photos", "--out", "energy.pt")
    assert done.code == 2
    assert "safetensors" in done.sentence


def test_a_network_of_another_is_gone_on_from(bezoar: Call) -> None:
    write_images(noise_images(20, size=20), Path("photos"), format="class_folders")
    steps = FEW[4:]  # without sizes: they are those of the network
    begun = EnergyNet(num_filters=3, patch_size=2, image_size=(16, 16), seed=5)
    begun.card = {"name": "begun", "updates": 7, "minutes": 1.5}
    save_energy(begun, Path("begun.safetensors"))
    call = ("train-energy", "photos", *steps, "--start")
    done = bezoar(*call, "begun.safetensors", "--json")
    assert done.code == 0
    net = load_energy("energy.safetensors")
    assert (net.num_filters, net.patch_size, net.image_size) == (3, 2, (16, 16))
    told = net.card["start"]
    assert told == {"start": fingerprint(begun), **begun.card}
    settings = replace(
        EnergyTraining.quick(),
        num_filters=3,
        patch_size=2,
        num_updates=3,
        batch_size=8,
        chain_steps=1,
        bank_size=20,
    )
    resized, _ = open_source("photos").read(image_size=(16, 16))
    expected = train_energy(resized.images, settings=settings, start=begun)
    assert fingerprint(net) == fingerprint(expected)
    other = bezoar(*call, "begun.safetensors", "--num-filters", "4").sentence
    assert "(3, 2, 3, (16, 16))" in other
    other = bezoar(*call, "begun.safetensors", "--image-size", "20").sentence
    assert "(20, 20)" in other
    assert "neither a file" in bezoar(*call[:-1], "--start=nothing").sentence


def test_the_network_that_ships_is_gone_on_from(bezoar: Call) -> None:
    write_images(noise_images(8, size=16), Path("photos"), format="class_folders")
    done = bezoar("train-energy", "photos", *FEW[4:], "--start", "cifar10-nf32")
    assert done.code == 0
    assert "32 channels in energy.safetensors" in done.out
    assert "8 of 32x32 pixels" in done.out
    told = load_energy("energy.safetensors").card["start"]
    assert isinstance(told, dict)
    assert told["start"] == fingerprint(load_energy("cifar10-nf32"))
