"""Encoders from disk: ours, transformers', CLIP towers, timm, your own function."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from bezoar.data import noise_images
from bezoar.errors import ModelError
from bezoar.models import (
    Architecture,
    TinyClip,
    WordTokenizer,
    architecture_of,
    encoder_format,
    fingerprint,
    is_encoder,
    load_dual_encoder,
    load_encoder,
    read_weights,
    save_dual_encoder,
    save_encoder,
    save_model,
    simclr,
    stage_names,
    unit_vectors,
    write_encoder,
)
from bezoar.runtime import Runtime
from tests.models.test_clip_files import hub_clip
from tests.models.test_huggingface import STATISTICS, resnet_config, saved

PLAIN = Runtime(dtype=torch.float32)
IMAGES = noise_images(3, size=16).images
VIT = ViTConfig(
    hidden_size=16,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=16,
    patch_size=4,
)


def test_one_of_ours_comes_back(tmp_path: Path) -> None:
    net = simclr("tiny", seed=2)
    save_encoder(net, tmp_path / "kept")
    assert is_encoder(str(tmp_path / "kept"))
    for spec in (tmp_path / "kept", tmp_path / "kept" / "encoder.safetensors"):
        assert fingerprint(load_encoder(str(spec))) == fingerprint(net)
    assert write_encoder(load_encoder(str(tmp_path / "kept")), tmp_path / "again")
    assert fingerprint(load_encoder(str(tmp_path / "again"))) == fingerprint(net)


def test_a_backbone_alone_is_kept_as_weights(tmp_path: Path) -> None:
    net = simclr("tiny").backbone
    assert architecture_of(net) is None
    assert not write_encoder(net, tmp_path)
    assert (
        read_weights(tmp_path / "model.safetensors").keys() == net.state_dict().keys()
    )


def test_the_vector_of_a_vit_is_what_transformers_pools(tmp_path: Path) -> None:
    own: Any = ViTModel(VIT)
    own.eval()
    net = load_encoder(saved(own, tmp_path / "vit"))
    shown = IMAGES.float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in STATISTICS.values())
    with torch.no_grad():
        expected = own(pixel_values=(shown - mean) / std).pooler_output
        assert torch.equal(net(shown), expected)
    assert len(stage_names(net)) == 4
    assert write_encoder(net, tmp_path / "again")
    assert fingerprint(load_encoder(str(tmp_path / "again"))) == fingerprint(net)


def test_a_classifier_gives_what_stands_before_its_last_layer(tmp_path: Path) -> None:
    own: Any = ViTForImageClassification(VIT)
    own.eval()
    spec = saved(own, tmp_path / "vit")
    assert not is_encoder(spec)
    net = load_encoder(spec)
    hidden = own.vit(pixel_values=torch.zeros(2, 3, 16, 16)).last_hidden_state
    inner = net.get_submodule("model")
    assert torch.equal(inner(torch.zeros(2, 3, 16, 16)), hidden[:, 0])
    conv = ResNetForImageClassification(resnet_config())
    assert unit_vectors(
        load_encoder(saved(conv, tmp_path / "resnet")), IMAGES
    ).shape == (3, 8)


def test_the_image_tower_of_a_clip_leaves_the_words_behind(tmp_path: Path) -> None:
    ours = TinyClip(WordTokenizer.from_captions(["a dot"]), resolution=24)
    save_dual_encoder(ours, tmp_path / "tiny")
    shown = noise_images(2, size=24).images
    net = load_encoder(str(tmp_path / "tiny"))
    with torch.no_grad():
        expected = ours.eval().encode_images(shown.float() / 255)
    assert torch.allclose(unit_vectors(net, shown, runtime=PLAIN), expected, atol=1e-5)
    assert encoder_format(net) is None
    assert not write_encoder(net, tmp_path / "again")
    hub_clip(tmp_path / "hub")
    hub = load_dual_encoder(str(tmp_path / "hub"))
    side = hub.resolution
    tower = load_encoder(str(tmp_path / "hub"))
    shown = noise_images(2, size=side).images
    with torch.no_grad():
        expected = hub.encode_images(shown.float() / 255)
    assert torch.allclose(
        unit_vectors(tower, shown, runtime=PLAIN), expected, atol=1e-5
    )
    assert not [n for n, _ in tower.named_parameters() if "text" in n]
    assert write_encoder(tower, tmp_path / "back")
    assert fingerprint(load_encoder(str(tmp_path / "back"))) == fingerprint(tower)


class Net(nn.Module):
    """A stand-in for timm's networks: 0 classes leave the classifier out."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(12, 5)
        self.fc = nn.Linear(5, num_classes) if num_classes else nn.Identity()
        self.num_classes = num_classes
        self.default_cfg: Any = {"classifier": "fc"}

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fc(self.body(images.flatten(1)))
        return found


def fake_timm() -> ModuleType:
    def create_model(
        name: str,  # noqa: ARG001
        pretrained: bool = False,
        num_classes: int = 1000,
    ) -> Net:
        assert not pretrained
        return Net(num_classes)

    config = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": (3, 2, 2)}
    fake: Any = ModuleType("timm")
    fake.create_model = create_model
    fake.data = SimpleNamespace(resolve_model_data_config=lambda _: config)
    return fake  # type: ignore[no-any-return]


@pytest.mark.parametrize("num_classes", [7, 0])
def test_a_network_of_timm_loses_its_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_classes: int
) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    own = Net(num_classes)
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    net = load_encoder(f"timm:tiny@{tmp_path / 'w.safetensors'}")
    shown = torch.rand(2, 3, 2, 2)
    assert torch.allclose(net(shown), own.body((2 * shown - 1).flatten(1)))


def test_a_function_of_yours_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "from torch import nn\ndef make():\n    return nn.Flatten()\n"
    (tmp_path / "mine.py").write_text(text)
    assert isinstance(load_encoder(f"{tmp_path / 'mine.py'}:make"), nn.Flatten)


def test_what_is_no_encoder_is_told(tmp_path: Path) -> None:
    told = Architecture(name="convnet", num_classes=2, width=4, stem="cifar")
    save_model(told.build(0), tmp_path / "classifier", architecture=told)
    assert not is_encoder(str(tmp_path / "classifier"))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for spec in ("classifier", "text", "no/such/place"):
        with pytest.raises(ModelError, match=r"expected an .*encoder"):
            load_encoder(str(tmp_path / spec))
