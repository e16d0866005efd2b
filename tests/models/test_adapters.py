"""timm and open_clip are not installed here: stand-ins with the functions we call."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models import Normalized, convnet, load_model

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std


def refusal(spec: str, **options: bool | int) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(spec, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def create_timm(name: str, pretrained: bool = False, num_classes: int = 1000) -> Any:
    assert not pretrained
    if name != "tiny":
        raise RuntimeError(f"Unknown model ({name})")
    torch.rand(1)  # as every layer that is made draws its first weights
    network = convnet(num_classes, width=4)
    network.num_classes = num_classes  # type: ignore[assignment]
    return network


def timm_config(_: nn.Module) -> dict[str, Any]:
    return {"mean": MEAN, "std": STD, "input_size": (3, 8, 8), "crop_pct": 0.9}


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("timm")
    fake.create_model = create_timm
    fake.data = SimpleNamespace(resolve_model_data_config=timm_config)
    monkeypatch.setitem(sys.modules, "timm", fake)


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
        self.token_embedding = nn.Embedding(3, 5)
        self.visual.preprocess_cfg = {  # type: ignore[assignment]
            "size": (8, 8),
            "mean": MEAN,
            "std": STD,
        }


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: str | None = None) -> Clip:
        assert pretrained is None
        if name != "tiny":
            raise RuntimeError(f"Model config for {name} not found.")
        return Clip()

    fake: Any = ModuleType("open_clip")
    fake.create_model = create_model
    monkeypatch.setitem(sys.modules, "open_clip", fake)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("num_classes", [1000, 6])
def test_timm_gets_its_weights_classes_and_normalisation(
    tmp_path: Path, num_classes: int
) -> None:
    source = convnet(num_classes, width=4, seed=1).eval()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    spec = f"timm:tiny@{tmp_path}/w.safetensors"
    state = torch.random.get_rng_state()
    model = load_model(spec, num_classes=num_classes)
    assert torch.random.get_rng_state().equal(state)
    assert isinstance(model, Normalized)
    assert model.image_size == 8
    assert torch.allclose(model(IMAGES), source(normalised(IMAGES)))
    message = f"expected a model of 7 classes, got one of {num_classes}"
    assert message in refusal(spec, num_classes=7)


@pytest.mark.usefixtures("timm")
def test_timm_refusals(tmp_path: Path) -> None:
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "w.safetensors")
    spec = f"timm:vast@{tmp_path}/w.safetensors"
    message = "of timm called 'vast', got RuntimeError: Unknown model (vast); correct"
    assert message in refusal(spec)
    message = "this ConvNet in 'w.safetensors', got a file without stage1.conv.weight"
    assert message in refusal(spec.replace("vast", "tiny"))


@pytest.mark.usefixtures("open_clip")
@pytest.mark.parametrize("part", ["whole", "visual"])
def test_open_clip_gives_the_image_encoder(tmp_path: Path, part: str) -> None:
    source = Clip()
    kept = source if part == "whole" else source.visual
    save_file(kept.state_dict(), tmp_path / "w.safetensors")
    model = load_model(f"open_clip:tiny@{tmp_path}/w.safetensors", num_classes=10)
    assert isinstance(model, Normalized)
    assert model.image_size == 8
    assert model(IMAGES).equal(source.visual(normalised(IMAGES)))


@pytest.mark.usefixtures("open_clip")
def test_open_clip_takes_the_statistics_beside_the_weights(tmp_path: Path) -> None:
    save_file(Clip().state_dict(), tmp_path / "w.safetensors")
    config = {"preprocess_cfg": {"mean": [0.1] * 3, "std": [0.7] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model = load_model(f"open_clip:tiny@{tmp_path}/w.safetensors")
    assert isinstance(model, Normalized)
    assert model.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert model.std.flatten().tolist() == pytest.approx([0.7] * 3)


@pytest.mark.usefixtures("open_clip")
def test_an_unknown_open_clip_model_is_told(tmp_path: Path) -> None:
    save_file(Clip().state_dict(), tmp_path / "w.safetensors")
    message = "called 'vast', got RuntimeError: Model config for vast not found."
    assert message in refusal(f"open_clip:vast@{tmp_path}/w.safetensors")


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_missing_library_is_told_with_the_command(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    message = refusal(f"{library}:tiny@w.safetensors")
    assert f"expected {library} to be installed, got ModuleNotFoundError" in message
    assert "run pip install 'bezoar[hub]'" in message


FACTORIES = """
import torch
from beside import WIDTH
from bezoar.models import convnet

def fixed():
    torch.rand(1)
    return convnet(4, width=WIDTH)

def sized(num_classes=2):
    return convnet(num_classes, width=WIDTH)

def demanding(num_classes):
    return convnet(num_classes, width=WIDTH)

def wrong():
    return 3

def failing():
    raise KeyError("no weights\\nhere")

def leaving():
    raise SystemExit(3)

constant = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "mine.py").write_text(FACTORIES)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("factory", "num_classes", "outputs"),
    [
        ("fixed", None, 4),
        ("fixed", 9, 4),
        ("sized", None, 2),
        ("sized", 9, 9),
        ("demanding", 9, 9),
    ],
)
def test_a_factory_is_run(
    file: str, factory: str, num_classes: int | None, outputs: int
) -> None:
    path = list(sys.path)
    state = torch.random.get_rng_state()
    model = load_model(f"{file}:{factory}", num_classes=num_classes)
    assert model(IMAGES).shape == (2, outputs)
    assert not model.training
    assert sys.path == path
    assert torch.random.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("wrong", "expected a torch module from wrong() in 'mine.py', got a int; "),
        ("failing", "a model from failing() in 'mine.py', got KeyError: 'no weights"),
        ("leaving", "a model from leaving() in 'mine.py', got SystemExit: 3; "),
        ("demanding", "a model from demanding() in 'mine.py', got TypeError: "),
        ("constant", "expected a function 'constant' in 'mine.py', got none; "),
        ("fixt", "got none; name one that is there: fixed"),
    ],
)
def test_what_goes_wrong_in_a_factory_is_told(
    file: str, factory: str, message: str
) -> None:
    assert message in refusal(f"{file}:{factory}")


def test_a_file_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_thing\n")
    message = "'mine.py' that can be imported, got ModuleNotFoundError: No module named"
    assert message in refusal(f"{tmp_path}/mine.py:f")
    (tmp_path / "mine.py").write_text("def f(:\n")
    assert "got SyntaxError: " in refusal(f"{tmp_path}/mine.py:f")
    assert "got no such file" in refusal(f"{tmp_path}/other.py:f")
