import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bezoar.errors import BezoarError, ModelError, StorageError
from bezoar.models import (
    Architecture,
    Normalized,
    convnet,
    fingerprint,
    load_model,
    resnet18,
    save_model,
)

ARCHITECTURE = Architecture(
    name="convnet",
    num_classes=3,
    width=4,
    mean=(0.49, 0.48, 0.45),
    std=(0.2, 0.21, 0.22),
    class_names=("a", "b", "c"),
    image_size=16,
)
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def saved(path: Path) -> nn.Module:
    model = ARCHITECTURE.build(seed=1)
    model(IMAGES)  # statistics other than those that every new network has
    save_model(model, path, architecture=ARCHITECTURE)
    return model.eval()


def refusal(spec: object, **options: bool | int) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(spec), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("saved_as", "spec"),
    [
        ("run/model", "run/model"),
        ("run/model", "run/model/model.safetensors"),
        ("w.safetensors", "w.safetensors"),
        ("w.safetensors", "convnet@{}w.safetensors"),
        ("w@1.safetensors", "convnet@{}w@1.safetensors"),
        ("w@1.safetensors", "w@1.safetensors"),
    ],
)
def test_what_was_saved_comes_back(tmp_path: Path, saved_as: str, spec: str) -> None:
    model = saved(tmp_path / saved_as)
    place = f"{tmp_path}/"
    loaded = load_model(spec.format(place) if "{}" in spec else place + spec)
    assert isinstance(loaded, Normalized)
    assert loaded(IMAGES).equal(model(IMAGES))
    assert fingerprint(loaded) == fingerprint(model)
    assert (loaded.image_size, loaded.class_names) == (16, ("a", "b", "c"))
    assert not loaded.training


def test_saved_weights_are_those_of_the_network_alone(tmp_path: Path) -> None:
    model = saved(tmp_path / "w.safetensors")
    assert isinstance(model, Normalized)
    assert set(load_file(tmp_path / "w.safetensors")) == set(model.model.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.safetensors"]


def test_saving_takes_wrappers_off_and_leaves_the_model(tmp_path: Path) -> None:
    model = ARCHITECTURE.build()
    weight = model.get_parameter("model.stage2.conv.weight")
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    before = fingerprint(model)
    save_model(nn.DataParallel(model), tmp_path / "m", architecture=ARCHITECTURE)
    assert fingerprint(model) == before == fingerprint(load_model(str(tmp_path / "m")))


def test_public_weights_load_by_their_shapes(tmp_path: Path) -> None:
    net = resnet18(7, stem="imagenet", width=4, seed=2).eval()
    weights = {n: w for n, w in net.state_dict().items() if "num_batches" not in n}
    save_file(weights, tmp_path / "public.safetensors")
    torch.save(weights, tmp_path / "public.pth")
    loaded = load_model(f"resnet18@{tmp_path}/public.safetensors", num_classes=7)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert loaded(IMAGES).equal(net((IMAGES - mean) / std))
    again = load_model(f"{tmp_path}/public.pth", unsafe_pickle=True)
    assert again(IMAGES).equal(loaded(IMAGES))


def test_a_save_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for model, message in (
        (convnet(4, width=4), r"fc.weight \(4, 16\) instead of \(3, 16\)"),
        (resnet18(3, width=4), "this ConvNet in 'model.safetensors', got a file with"),
        (
            Normalized(convnet(3, width=4), mean=[0.5] * 3, std=[1.0] * 3),
            "normalises by .* got one that does not",
        ),
    ):
        with pytest.raises(ModelError, match=message):
            save_model(model, tmp_path / "m", architecture=ARCHITECTURE)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"):
        save_model(
            ARCHITECTURE.build(), tmp_path / "file" / "m", architecture=ARCHITECTURE
        )


def test_weights_that_were_changed_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    weights = load_file(tmp_path / "w.safetensors")
    weights["fc.bias"] += 1
    save_file(weights, tmp_path / "w.safetensors")
    message = refusal(tmp_path / "w.safetensors")
    assert "weights that 'w.json' was written for, got others" in message


def test_settings_that_were_changed_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    path = tmp_path / "w.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "width": 400_000}))
    assert "convnet of 3 classes, width 4" in refusal(tmp_path / "w.safetensors")


def test_refusals_of_our_own_models(tmp_path: Path) -> None:
    saved(tmp_path / "w.safetensors")
    spec = f"{tmp_path}/w.safetensors"
    message = "expected a model of 5 classes, got one of 3 from"
    assert message in refusal(spec, num_classes=5)
    message = "expected weights of resnet18, got those of convnet in 'w.safetensors'"
    assert message in refusal(f"resnet18@{spec}")
    assert "before the @, got 'vgg'; use timm:" in refusal(f"vgg@{spec}")
    assert "got no such file; check" in refusal(f"convnet@{tmp_path}/none.safetensors")
    torch.save(convnet(2, width=4).state_dict(), tmp_path / "w.pt")
    assert "got the pickle 'w.pt'" in refusal(f"convnet@{tmp_path}/w.pt")
    weights = load_file(spec)
    del weights["stage3.bn.bias"]
    save_file(weights, tmp_path / "part.safetensors")
    message = "got a file without stage3.bn.bias; name the architecture"
    assert message in refusal(tmp_path / "part.safetensors")


@pytest.mark.parametrize(
    "spec", ["resnet18", "timm:resnet18", "/no/such/place", "a b", "", "m.py:f g"]
)
def test_a_text_that_names_no_model_is_told_the_forms(spec: str) -> None:
    assert "write a path, NAME@weights.safetensors, timm:NAME" in refusal(spec)


def test_model_errors_are_bezoar_errors() -> None:
    with pytest.raises(BezoarError):
        load_model("resnet18")
