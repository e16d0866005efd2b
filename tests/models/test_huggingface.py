import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from torch import nn
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
)

from bezoar.errors import ModelError
from bezoar.models import Normalized, check_model_output, default_layer, load_model

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
STATISTICS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}


def vit() -> PreTrainedModel:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=4,
        id2label={0: "cat", 1: "dog", 2: "owl"},
    )
    return ViTForImageClassification(config)


def resnet_config() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "a", 1: "b"},
    )


def saved(model: PreTrainedModel, folder: Path, **processor: Any) -> str:
    log: Any = transformers.utils.logging
    log.disable_progress_bar()
    model.save_pretrained(folder)
    log.enable_progress_bar()
    text = json.dumps(STATISTICS | processor)
    (folder / "preprocessor_config.json").write_text(text)
    return str(folder)


def refusal(spec: str, **options: bool | int) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(spec, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_classifier_gives_its_logits_for_images_in_the_unit_range(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = vit()
    spec = saved(source, tmp_path)
    state = torch.random.get_rng_state()
    capfd.readouterr()
    model = load_model(spec, num_classes=3)
    assert capfd.readouterr() == ("", "")
    assert torch.random.get_rng_state().equal(state)
    assert transformers.utils.logging.is_progress_bar_enabled()
    assert isinstance(model, Normalized)
    assert (model.image_size, model.class_names) == (16, ("cat", "dog", "owl"))
    assert check_model_output(model, IMAGES, 3) == 3
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in STATISTICS.values())
    source.train(False)
    with torch.no_grad():
        expected = source(pixel_values=(IMAGES - mean) / std).logits
        assert torch.allclose(model(IMAGES), expected, atol=1e-6)
    assert default_layer(model) == "model.model.vit.layernorm"


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({}, 0.5, 0.2),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5}, 0.25, 0.1),  # images from 0 to 2
        ({"do_rescale": False}, 0.5 / 255, 0.2 / 255),
    ],
)
def test_the_processors_scale_is_ours(
    tmp_path: Path, processor: dict[str, object], mean: float, std: float
) -> None:
    model = load_model(saved(vit(), tmp_path, **processor))
    assert isinstance(model, Normalized)
    assert model.mean.flatten()[0].item() == pytest.approx(mean)
    assert model.std.flatten()[0].item() == pytest.approx(std)


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": 96}, 96),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, 224),
        ({"size": {"height": 64, "width": 64}}, 64),
        ({"size": {"height": 64, "width": 32}}, None),
        ({}, None),
    ],
)
def test_the_size_comes_from_the_processor_where_the_model_has_none(
    tmp_path: Path, processor: dict[str, object], size: int | None
) -> None:
    source = ResNetForImageClassification(resnet_config())
    model = load_model(saved(source, tmp_path, **processor))
    assert isinstance(model, Normalized)
    assert model.image_size == size


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = saved(vit(), tmp_path)
    assert "expected a model of 7 classes, got one of 3" in refusal(spec, num_classes=7)
    statistics = tmp_path / "preprocessor_config.json"
    statistics.write_text("{}")
    assert "lists image_mean and image_std" in refusal(spec)
    statistics.unlink()
    assert "preprocessor_config.json in" in refusal(spec)
    (tmp_path / "empty").mkdir()
    assert "got neither model.json nor config.json" in refusal(str(tmp_path / "empty"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "in 'no/model', got OSError: " in refusal("no/model")


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    spec = saved(ResNetModel(resnet_config()), tmp_path)
    assert "got none for 'classifier.1." in refusal(spec)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    source = vit()
    nn.init.constant_(source.get_parameter("classifier.bias"), torch.nan)
    assert "in 'classifier.bias'" in refusal(saved(source, tmp_path))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    source = vit()
    spec = saved(source, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    assert "model.safetensors" in refusal(spec)
    model = load_model(spec, unsafe_pickle=True)
    assert check_model_output(model, IMAGES) == 3


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    spec = saved(vit(), tmp_path)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"AutoConfig": "own.C", "AutoModelForImageClassification": "own.M"}
    config |= {"model_type": "own", "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "contains custom code" in refusal(spec)
    assert not (tmp_path / "mark").exists()
