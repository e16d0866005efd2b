import pytest
import torch
from torch import Tensor, nn
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from bezoar.errors import ModelError
from bezoar.models import (
    Normalized,
    check_model_output,
    convnet,
    default_layer,
    resnet18,
)

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Returns(nn.Module):
    """A model that returns what it is told to."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> object:
        return self.output


def test_a_sound_model_passes_and_stays_as_it_is() -> None:
    net = convnet(10, width=4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert check_model_output(net, IMAGES, 10) == 10
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((1, 2), r"got a tuple of 2; wrap the model so that it returns the logits"),
        ([], r"got a list of 0; wrap"),
        ({"logits": 1}, r"got a dict with logits; wrap"),
        (None, r"got a NoneType; wrap"),
        (torch.zeros(2, 4, 2, 2), r"for 2 images, got a tensor \(2, 4, 2, 2\)"),
        (torch.zeros(4), r"for 2 images, got a tensor \(4,\)"),
        (torch.zeros(3, 12), r"for 2 images, got a tensor \(3, 12\)"),
        (torch.zeros(2, 10), r"the 12 classes of the data, got 10; give the model"),
        (torch.full((2, 12), torch.inf), r"finite logits, got NaN or infinity; check"),
    ],
)
def test_a_wrong_output_is_told_in_one_sentence(output: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_model_output(Returns(output), IMAGES, 12)
    assert "\n" not in str(caught.value)


def test_a_model_of_transformers_is_told_by_its_fields() -> None:
    with pytest.raises(ModelError, match=r"got a ImageClassifierOutput.* with logits"):
        check_model_output(tiny_vit(), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["stage2.conv.weight", "stage3.bn.running_var"])
def test_weights_that_are_not_finite_are_named(name: str) -> None:
    net = convnet(2, width=4)
    net.state_dict()[name].view(-1)[0] = torch.nan
    with pytest.raises(ModelError, match=f"got NaN or infinity in '{name}'; take"):
        check_model_output(net, IMAGES)


def test_images_that_a_model_refuses_are_told_with_its_reason() -> None:
    message = r"takes images \(3, 8, 8\), got RuntimeError: .*; give images of the size"
    with pytest.raises(ModelError, match=message) as caught:
        check_model_output(convnet(2, in_channels=1, width=4), IMAGES)
    assert "\n" not in str(caught.value)


def tiny_vit() -> ViTForImageClassification:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=4,
    )
    return ViTForImageClassification(config)


def tiny_resnet() -> ResNetForImageClassification:
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    return ResNetForImageClassification(config)


class Torchvision(nn.Module):
    """The tail of torchvision's ResNets: named pooling, and flattening by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2)
        self.layer4 = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.avgpool(self.layer4(self.conv1(images)))
        logits: Tensor = self.fc(torch.flatten(pooled, 1))
        return logits


class SelectAdaptivePool2d(nn.Module):
    """Pools, then flattens, as a module of timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = self.flatten(self.pool(x))
        return flat


def vgg() -> nn.Sequential:
    """VGG for 32x32 images: the last map stands before the last pooling."""
    features = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)),
        *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)),
    )
    return nn.Sequential(features, nn.Dropout(), nn.Flatten(), nn.Linear(32, 2))


def timm_like() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Identity())
    return net.append(SelectAdaptivePool2d()).append(nn.Linear(4, 2))


LAST_STAGE = list(dict(convnet(2, width=4).named_children()))[-2]


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (resnet18(2, width=4), "layer4"),
        (resnet18(2, stem="imagenet", width=4), "layer4"),
        (Normalized(convnet(2, width=4), mean=[0.5], std=[1.0]), f"model.{LAST_STAGE}"),
        (nn.DataParallel(convnet(2, width=4)), LAST_STAGE),
        (Torchvision(), "layer4"),
        (timm_like(), "1"),
        (vgg(), "0.4"),
        (tiny_resnet(), "resnet.encoder.stages.1"),
        (tiny_vit(), "vit.layernorm"),
    ],
)
def test_the_last_map_before_pooling_is_found(model: nn.Module, layer: str) -> None:
    modes = [module.training for module in model.modules()]
    assert default_layer(model) == layer
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_images_of_an_odd_size_can_be_given() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4 * 6 * 4, 2))
    assert default_layer(net, torch.rand(1, 3, 7, 5)) == "0"
    with pytest.raises(
        ModelError, match=r"got RuntimeError: .*; give some images, or na"
    ):
        default_layer(net)


def test_a_model_without_maps_asks_for_a_name() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(ModelError, match="got Sequential without; name the layer"):
        default_layer(net)
