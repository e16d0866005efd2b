import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.models import resnet18, resnet34, resnet50, tap
from bezoar.models.resnet import BasicBlock, Stem


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# Published counts: torchvision's tables for 34 and 50, the CIFAR literature for 18.
def test_parameter_counts_are_the_published_ones() -> None:
    assert size(resnet18(10)) == 11_173_962
    assert size(resnet34(1000, stem="imagenet")) == 21_797_672
    assert size(resnet50(1000, stem="imagenet")) == 25_557_032


def test_weights_bear_the_names_of_public_files() -> None:
    names = resnet50(3, width=4).state_dict()
    assert {"conv1.weight", "bn1.running_var", "fc.bias"} <= set(names)
    assert "layer3.5.conv3.weight" in names
    assert "layer3.6.conv1.weight" not in names
    assert names["layer2.0.downsample.0.weight"].shape == (32, 16, 1, 1)
    assert names["layer2.0.conv2.weight"].shape == (8, 8, 3, 3)


@pytest.mark.parametrize(("stem", "side"), [("cifar", 8), ("imagenet", 2)])
def test_the_stem_sets_the_resolution(stem: Stem, side: int) -> None:
    net = resnet18(2, stem=stem, width=4)
    with tap(net, "layer4") as tapped:
        net(torch.zeros(1, 3, 64, 64))
    assert tapped.output.shape == (1, 32, side, side)


def test_logits_follow_from_features() -> None:
    net = resnet18(3, width=4, in_channels=1).eval()
    images = torch.rand(2, 1, 16, 16)
    features = net.features(images)
    assert features.shape == (2, 32)
    assert net(images).equal(features @ net.fc.weight.T + net.fc.bias)


def conv(weights: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    return functional.conv2d(x, weight, stride=stride, padding=len(weight[0, 0]) // 2)


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    m, v, g, b = (
        weights[f"{name}.{key}"].view(-1, 1, 1)
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - m) / (v + 1e-5).sqrt() * g + b


def by_hand(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The paper's network out of a dict of weights; the 3x3 of a bottleneck strides."""
    convs = 3 if "layer1.0.conv3.weight" in weights else 2
    strided = convs - 1
    large = weights["conv1.weight"].shape[-1] == 7
    x = norm(weights, "bn1", conv(weights, "conv1", x, 1 + large)).relu()
    x = functional.max_pool2d(x, 3, stride=2, padding=1) if large else x
    for layer in (1, 2, 3, 4):
        for block in range(9):
            name = f"layer{layer}.{block}"
            if f"{name}.conv1.weight" not in weights:
                break
            stride = 2 if layer > 1 and block == 0 else 1
            y = x
            for i in range(1, convs + 1):
                step = stride if i == strided else 1
                y = norm(
                    weights, f"{name}.bn{i}", conv(weights, f"{name}.conv{i}", y, step)
                )
                y = y.relu() if i < convs else y
            if f"{name}.downsample.0.weight" in weights:
                x = conv(weights, f"{name}.downsample.0", x, stride)
                x = norm(weights, f"{name}.downsample.1", x)
            x = (x + y).relu()
    return x.flatten(2).mean(2) @ weights["fc.weight"].T + weights["fc.bias"]


@pytest.mark.parametrize(
    "net",
    [
        resnet18(3, width=4),
        resnet18(3, stem="imagenet", width=4),
        resnet34(3, width=4),
        resnet50(3, width=4),
    ],
)
def test_forward_is_that_of_the_paper(net: nn.Module) -> None:
    images = torch.rand(8, 3, 33, 33)
    net(images)  # in training mode, for statistics that are not 0 and 1
    with torch.no_grad():
        expected = by_hand(dict(net.state_dict()), images)
        # Rounding, added up over 53 layers whose statistics are far from settled.
        bound = 1e-4 * float(expected.abs().max())
        assert torch.allclose(net.eval()(images), expected, atol=bound, rtol=0)


def test_first_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (resnet18(2, width=4, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert all(one[name].equal(same[name]) for name in one)
    assert not one["conv1.weight"].equal(other["conv1.weight"])
    assert not one["fc.bias"].equal(other["fc.bias"])


def test_first_weights_have_the_spread_of_he() -> None:
    # 2.4 million numbers
    weight = resnet18(2).get_parameter("layer4.1.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-4


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_strided_shortcuts_of_few_channels_are_plain_convolutions(
    channels: int,
) -> None:
    # In channels_last torch 2.13 may write beyond its memory there, on AVX2 alone.
    layer = BasicBlock(channels, 8, stride=2).double().downsample
    assert layer is not None
    conv = layer[0]
    assert isinstance(conv, nn.Conv2d)
    images = torch.rand(8, channels, 9, 8, dtype=torch.float64)
    found = conv(images.contiguous(memory_format=torch.channels_last))
    plain = functional.conv2d(images, conv.weight, stride=2)
    torch.testing.assert_close(found, plain)
    slopes = [torch.autograd.grad(y.sum(), conv.weight)[0] for y in (found, plain)]
    torch.testing.assert_close(*slopes)
