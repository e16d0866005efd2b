"""Information where it is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from bezoar.bench.reference.mimic import gaussian_information, plain_information
from bezoar.data import noise_images
from bezoar.models import simclr
from bezoar.models.critic import Critic
from bezoar.repair.activations import Activations, Shown
from bezoar.repair.information import (
    Estimation,
    donsker_varadhan,
    fit_critics,
    layer_weights,
)
from bezoar.runtime import Runtime

FLOAT = Runtime(dtype=torch.float32)


def batches(a: Tensor, z: Tensor, size: int) -> list[Shown]:
    return [Shown((x,), y) for x, y in zip(a.split(size), z.split(size), strict=True)]


def test_weights() -> None:
    told = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    found = layer_weights(told, base=1000, total=10000)
    assert list(found.values()) == pytest.approx([2000, 3000, 4000, 5000])
    even = layer_weights(dict.fromkeys(told, 0.0), base=1000, total=10000)
    assert list(even.values()) == [3500] * 4


def test_large_values_stay_finite() -> None:
    values = torch.tensor([1e4, -1e4])
    assert donsker_varadhan(values, values).item() == pytest.approx(-1e4 + math.log(2))
    clamped = donsker_varadhan(values, values, clip=5.0).item()
    assert clamped == pytest.approx(-math.log((math.exp(5) + math.exp(-5)) / 2))


def test_the_split_layer_is_the_joined_one() -> None:
    critic = Critic(6, 4, hidden=8, seed=0)
    stream = torch.Generator().manual_seed(1)
    a, z = torch.randn(5, 6, generator=stream), torch.randn(5, 4, generator=stream)
    order = torch.tensor([2, 0, 1, 4, 3])
    joined = nn.Linear(10, 8)
    with torch.no_grad():
        weight = torch.cat([critic.of_activation.weight, critic.of_feature.weight], 1)
        joined.weight.copy_(weight)
        joined.bias.copy_(critic.of_activation.bias)
    rest = nn.Sequential(joined, nn.ReLU(), critic.middle, nn.ReLU(), critic.last)
    plain = plain_information(a, z, rest, order)
    ours = donsker_varadhan(*critic(a, z, order))
    assert (ours - plain).abs() < 1e-6


def test_gaussians_of_known_information() -> None:
    size, rho = 5, 0.9
    stream = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 6000, size, generator=stream)
    a = rho * z + math.sqrt(1 - rho**2) * noise
    found = fit_critics(
        batches(a[:5000], z[:5000], 500),
        batches(a[5000:], z[5000:], 1000),
        layers=["layer"],
        settings=Estimation(epochs=40, hidden=128),
    )
    expected = gaussian_information(rho, size)
    assert found.values["layer"] == pytest.approx(expected, rel=0.2)


def test_two_hundred_independent_pairs_fool_the_critic_but_not_the_held_out() -> None:
    stream = torch.Generator().manual_seed(0)
    a, z = torch.randn(2, 400, 16, generator=stream)
    found = fit_critics(
        batches(a[:200], z[:200], 200),
        batches(a[200:], z[200:], 200),
        layers=["layer"],
        settings=Estimation(epochs=100, hidden=256),
    )
    assert found.curve[-1]["layer"] > 1
    assert found.values["layer"] <= 0.1


def test_activations_kept_are_those_computed_anew() -> None:
    net, images = simclr("tiny").backbone, noise_images(70, size=16).images
    layers = ["model.layer1", "model.layer4"]
    kept, anew = (
        Activations(
            net,
            images,
            layers=layers,
            pool=4,
            batch_size=32,
            runtime=FLOAT,
            most_bytes=room,
        )
        for room in (1 << 30, 0)
    )
    assert kept.cached
    assert not anew.cached
    first = next(iter(kept))
    assert [a.shape[1] for a in first.activations] == [16 * 16, 128 * 4]
    for one, two in zip(kept, anew, strict=True):
        assert one.features.equal(two.features)
        assert all(map(torch.equal, one.activations, two.activations))
