import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bezoar.errors import ModelError
from bezoar.models import Architecture
from bezoar.models.architecture import inferred, read_settings, write_settings

ARCHITECTURES = [
    Architecture(name="resnet18", num_classes=3, width=4),
    Architecture(name="resnet34", num_classes=2, width=4, mean=(0.0,), std=(1.0,)),
    Architecture(name="resnet50", num_classes=2, width=4),
    Architecture(name="convnet", num_classes=5, width=4),
    Architecture(
        name="resnet18",
        num_classes=2,
        width=4,
        stem="imagenet",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_tell_the_architecture(architecture: Architecture) -> None:
    weights = architecture.build().model.state_dict()
    assert inferred(weights, path=Path("w")) == architecture


def test_build_normalises_and_knows_its_classes() -> None:
    model = Architecture(
        name="convnet",
        num_classes=2,
        width=4,
        mean=(0.5,),
        std=(0.25,),
        class_names=("cat", "dog"),
        image_size=16,
    ).build(seed=1)
    assert (model.image_size, model.class_names) == (16, ("cat", "dog"))
    images = torch.rand(2, 1, 16, 16)
    assert model.eval()(images).equal(model.model((images - 0.5) / 0.25))


def test_width_is_the_usual_one_when_none_is_given() -> None:
    built = Architecture(name="convnet", num_classes=2).build()
    assert len(built.model.state_dict()["stage1.conv.weight"]) == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vgg"}, "got name 'vgg'"),
        ({"stem": "imagenet"}, "got an imagenet stem for a convnet"),
        ({"num_classes": 0}, "got sizes that are no whole numbers above 0"),
        ({"class_names": ("a",)}, r"got class names \('a',\) for 2 classes"),
        ({"std": (1.0, 0.0, 1.0)}, r"got mean \(0.0, .*\) and std \(1.0, 0.0, 1.0\)"),
        ({"mean": (0.0, float("nan"), 0.0)}, r"got mean \(0.0, nan, 0.0\)"),
        ({"mean": (0.0,)}, r"got mean \(0.0,\) and std"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Architecture(**{"name": "convnet", "num_classes": 2, **change})


def test_weights_of_others_are_refused() -> None:
    for weights in (
        {"head.weight": torch.zeros(2, 2)},
        {"conv1.weight": torch.zeros(4, 3, 5, 5), "fc.weight": torch.zeros(2, 32)},
    ):
        with pytest.raises(ModelError, match=r"in 'w', got others such as \w+\.weight"):
            inferred(weights, path=Path("w"))


# 40 kB that claim a network of 4 GB: the claim must not be believed.
def test_a_small_file_cannot_claim_a_huge_network() -> None:
    weights = Architecture(name="convnet", num_classes=2, width=4).build().model
    claim = {**weights.state_dict(), "stage1.conv.weight": torch.zeros(4096, 3, 3, 3)}
    with pytest.raises(ModelError, match="got others"):
        inferred(claim, path=Path("w"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_settings_come_back_from_json(
    architecture: Architecture, tmp_path: Path
) -> None:
    write_settings(architecture, tmp_path / "s.json", sha256="abc")
    assert read_settings(tmp_path / "s.json") == (architecture, "abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "as JSON in '.*', got JSONDecodeError: "),
        ("[1]", "as JSON in '.*', got TypeError: "),
        (json.dumps({"mean": 3}), "as JSON in '.*', got TypeError: "),
        (json.dumps({"name": "convnet", "sha256": ""}), "as to 'num_classes'; restore"),
        (
            json.dumps({"name": "convnet", "num_classes": 2, "sha256": "", "x": 1}),
            "as to 'x'; restore",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_settings(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": "2"}, "no whole numbers"),
        ({"num_classes": True}, "no whole numbers"),
        ({"width": 1.5}, "no whole numbers"),
        ({"stem": ["cifar"]}, r"stem \['cifar'\]"),
        ({"std": ["1", "1", "1"]}, r"and std \('1', '1', '1'\)"),
        ({"class_names": [1, 2]}, r"class names \(1, 2\)"),
    ],
)
def test_settings_of_wrong_types_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    settings = {"name": "convnet", "num_classes": 2, "sha256": "", **change}
    (tmp_path / "s.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=message):
        read_settings(tmp_path / "s.json")
