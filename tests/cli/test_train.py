"""``bezoar train`` and ``bezoar evaluate`` end to end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bezoar import Progress
from bezoar.attacks import BadNets, write_manifest
from bezoar.data import ImageData, digit_images, write_images
from bezoar.metrics import evaluate
from bezoar.models import Normalized, load_model
from tests.cli.conftest import Call

NET = ("--arch", "convnet", "--width", "4")


@pytest.fixture
def digits(tmp_path: Path) -> ImageData:
    """Two kinds of digits of eight pixels, in ``digits/``."""
    every = digit_images(size=8)
    few = every.take((every.labels < 2).nonzero().flatten()[:60])
    data = ImageData(
        images=few.images,
        labels=few.labels,
        ids=few.ids,
        class_names=("0", "1"),
    )
    write_images(data, tmp_path / "digits", format="class_folders")
    return data


def test_a_model_is_trained_and_measured(bezoar: Call, digits: ImageData) -> None:
    call = ("train", "digits", *NET, "--epochs", "12", "--batch-size", "16", "--json")
    answer = bezoar(*call, "--lr", "0.2")
    assert answer.code == 0
    told = answer.json
    assert told["num_images"] == 60
    assert isinstance(told["training"], dict)
    assert (told["training"]["epochs"], told["training"]["lr"]) == (12, 0.2)
    model = load_model("model.safetensors")
    assert isinstance(model, Normalized)
    assert (model.class_names, model.image_size) == (("0", "1"), 8)
    accuracy = evaluate(model, digits).clean_accuracy
    assert told["training_accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert sorted(p.name for p in Path().iterdir()) == [
        "digits",
        "model.json",
        "model.safetensors",
    ]
    shown = bezoar("evaluate", "digits", "--model", "model.safetensors")
    assert shown.code == 0
    assert shown.out.startswith(f"clean accuracy  {accuracy:.1%}"[:-1])


@pytest.mark.usefixtures("digits")
def test_training_repeats_from_its_seed(bezoar: Call) -> None:
    call = ("train", "digits", *NET, "--epochs", "1", "--batch-size", "32")
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert bezoar(*call, "--out", f"{out}.safetensors", "--seed", seed).code == 0
    a, b, c = (Path(f"{out}.safetensors").read_bytes() for out in "abc")
    assert a == b
    assert a != c


@pytest.mark.usefixtures("digits")
def test_a_training_that_stopped_goes_on(
    bezoar: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("train", "digits", *NET, "--epochs", "4", "--batch-size", "32")
    assert bezoar(*call, "--out", "whole.safetensors").code == 0
    epochs = 0

    @contextmanager
    def impatient() -> Iterator[Callable[[Progress], None]]:
        def report(progress: Progress) -> None:
            nonlocal epochs
            epochs += progress.stage == "train"
            if epochs == 2 and progress.stage == "train":
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr("bezoar.cli.sharing.bars", impatient)
    answer = bezoar(*call, "--out", "part.safetensors")
    assert answer.code == 130
    assert answer.err.count("\n") == 1
    assert not Path("part.safetensors").exists()
    assert bezoar(*call, "--out", "part.safetensors").code == 0
    assert epochs == 4  # not 6: the first two were not done again
    whole, part = (Path(f"{n}.safetensors").read_bytes() for n in ("whole", "part"))
    assert whole == part


def test_the_success_of_an_attack_is_that_of_the_library(
    bezoar: Call, digits: ImageData
) -> None:
    attack = BadNets(poison_rate=0.3, target_class=1)
    drill = attack.poison(digits)
    write_manifest(drill, Path("truth.json"))
    assert bezoar("train", "digits", *NET, "--epochs", "2").code == 0
    call = ("evaluate", "digits", "--model", "model.safetensors")
    answer = bezoar(*call, "--attack", "truth.json", "--json")
    assert answer.code == 0
    found = answer.json
    expected = evaluate(load_model("model.safetensors"), digits, attack=attack)
    assert found["attack_success_rate"] == expected.attack_success_rate
    assert found["num_triggered"] == int((digits.labels != 1).sum())
    assert found["target_class_accuracy"] == expected.target_class_accuracy
    assert found["remarks"] == []
    text = bezoar(*call, "--attack", "truth.json").out
    assert "attack success rate" in text
    assert "floor" in text
    larger = bezoar(*call, "--attack", "truth.json", "--image-size", "16")
    assert "made for images of 8x8 pixels and is shown on 16x16" in larger.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "digits", "--out", "model.pt"), "end in .safetensors"),
        (("train", "digits", "--out", "digits/m.safetensors"), "outside the set"),
        (("train", "flat"), "labels to train"),
        (("evaluate", "digits", "--model", "nowhere"), "'nowhere'"),
        (
            ("evaluate", "digits", "--model", "model.safetensors", "--attack", "no"),
            "manifest",
        ),
        (("evaluate", "flat", "--model", "model.safetensors"), "labelled images"),
    ],
)
@pytest.mark.usefixtures("digits")
def test_calls_without_sense_are_refused(
    bezoar: Call, words: tuple[str, ...], told: str, model: Path
) -> None:
    if "model.safetensors" in words:
        words = tuple(str(model) if w == "model.safetensors" else w for w in words)
    Path("flat").mkdir()
    source = next(Path("digits").rglob("*.png"))
    Path("flat/1.png").write_bytes(source.read_bytes())
    answer = bezoar(*words)
    assert answer.code == 2
    assert told in answer.sentence


@pytest.mark.usefixtures("digits")
def test_a_loss_that_explodes_is_one_sentence(bezoar: Call) -> None:
    answer = bezoar("train", "digits", *NET, "--epochs", "3", "--lr", "1e30")
    assert answer.code == 2
    assert "lower lr" in answer.sentence
