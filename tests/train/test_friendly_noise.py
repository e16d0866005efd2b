"""Friendly noise is large, harmless to the network it is for, and within its bound."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import digit_images, noise_images
from bezoar.errors import InputError
from bezoar.models import convnet, frozen
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import (
    FriendlyNoise,
    RandomNoise,
    Training,
    train_classifier,
    train_with_friendly_noise,
)
from bezoar.train.friendly_noise import disturbance

DATA = digit_images(size=16).take(torch.arange(300))
EXACT = Runtime(dtype=torch.float32)


@cache
def trained() -> nn.Module:
    return train_classifier(
        convnet(10, width=8), data=DATA, settings=Training(epochs=5), runtime=EXACT
    )


def moved(model: nn.Module, images: Tensor, noisy: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        there, here = (model(x.float() / 255) for x in (noisy, images))
    none = torch.zeros(len(images), 1, 1, 1)
    return disturbance(there, here, none, size_weight=0.0)


def test_the_output_moves_less_than_under_noise_of_the_same_size() -> None:
    images = DATA.images[:64]
    friendly = FriendlyNoise().added(images, model=trained(), runtime=EXACT)
    step = (friendly.float() - images.float()).square().flatten(1).mean(1).sqrt()
    found = moved(trained(), images, friendly)
    rough = moved(trained(), images, as_large(images, step))
    assert step.mean() > 6  # of 255
    assert found.mean() < 0.5 * rough.mean()


def as_large(images: Tensor, step: Tensor) -> Tensor:
    """Return images with uniform noise of a root mean square each, black stays."""
    noise = 2 * torch.rand(images.shape, generator=generator(0, "uniform")) - 1
    level = 2 * step
    for _ in range(20):
        noisy = (images + level[:, None, None, None] * noise).clamp(0, 255)
        level = level * step / (noisy - images).square().flatten(1).mean(1).sqrt()
    return noisy.round().to(torch.uint8)


@pytest.mark.parametrize("levels", [16, 32])
def test_the_bound_holds_and_is_reached(levels: int) -> None:
    images = DATA.images[:16]
    method = FriendlyNoise(eps=levels / 255)
    found = method.added(images, model=trained(), runtime=EXACT)
    change = (found.int() - images.int()).abs()
    assert change.max() == levels


def test_noise_depends_on_the_image_and_the_seed_alone() -> None:
    images, method = DATA.images[:9], FriendlyNoise(steps=4)
    before = {k: v.clone() for k, v in trained().state_dict().items()}
    whole = method.added(images, model=trained(), runtime=EXACT)
    small = replace(EXACT, batch_size=4)
    parts = method.added(images.flip(0), model=trained(), runtime=small).flip(0)
    assert (whole.int() - parts.int()).abs().max() <= 1  # rounding of the last bit
    assert not whole.equal(method.added(images, model=trained(), seed=1, runtime=EXACT))
    torch.testing.assert_close(trained().state_dict(), before, atol=0, rtol=0)
    assert all(p.requires_grad for p in trained().parameters())


def test_the_slope_is_that_of_finite_differences() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Tanh()).double()
    stream = generator(0, "slope")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=stream)
    images = torch.rand(2, 3, 2, 2, generator=stream, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, 3, 2, 2, generator=stream, dtype=torch.float64)

    def of(noise: Tensor) -> Tensor:
        return disturbance(net(images + noise), net(images), noise, size_weight=16.0)

    noise.requires_grad_()
    (slope,) = torch.autograd.grad(of(noise).sum(), noise)
    for place in range(noise.numel()):
        bump = torch.zeros_like(noise).detach()
        bump.view(-1)[place] = 1e-6
        with torch.no_grad():
            rise = (of(noise + bump) - of(noise - bump)).sum() / 2e-6
        torch.testing.assert_close(slope.flatten()[place], rise, rtol=1e-5, atol=1e-7)


def test_divergence_and_size_by_hand() -> None:
    noisy = torch.tensor([[0.5, 0.5]]).log()
    clean = torch.tensor([[0.25, 0.75]]).log()
    noise = torch.full((1, 3, 2, 2), 0.1)
    found = disturbance(noisy, clean, noise, size_weight=16.0)
    by_hand = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    assert found.item() == pytest.approx(by_hand.item() - 0.16, abs=1e-6)


def test_steps_are_nesterovs_on_a_network_without_a_say() -> None:
    # A constant network: the slope is -2 mu n / N, and the noise only grows.
    method = FriendlyNoise(eps=1.0, start_eps=1.0, steps=2, lr=1.0, size_weight=3.0)
    images, start = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.01)
    found = method.found(Constant(), images, start=start)
    rate, noise, momentum = 1.0, 0.01, 0.0
    for lr in (rate, 0.1 * rate):
        slope = -2 * 3.0 * noise / 4
        momentum = 0.9 * momentum + slope
        noise -= lr * (slope + 0.9 * momentum)
    torch.testing.assert_close(found, torch.full_like(images, noise))


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 2) + 0 * images.sum()


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_fresh_noise_has_its_size_and_comes_from_the_stream(kind: str) -> None:
    images, labels = torch.full((8, 3, 16, 16), 0.5), torch.zeros(8, dtype=torch.int64)
    noise = RandomNoise(kind=kind, eps=0.1)  # type: ignore[arg-type]

    def drawn(seed: int) -> Tensor:
        return noise(nn.Identity(), images, labels, generator(seed, "fresh")) - images

    assert drawn(0).equal(drawn(0))
    assert not drawn(0).equal(drawn(1))
    assert drawn(0).std().item() == pytest.approx(0.1, rel=0.05)
    assert drawn(0).mean().abs() < 0.01
    is_even = ((drawn(0).abs() - 0.1).abs() < 1e-6).all()
    assert is_even == (kind == "bernoulli")


def test_training_shows_both_noises_and_is_repeatable(tmp_path: Path) -> None:
    data, seen = noise_images(16), []
    runtime = Runtime(
        dtype=torch.float32, progress=lambda p: seen.append(stage_of(p)), work_dir=None
    )

    def found(seed: int, warm_up: int, runtime: Runtime = EXACT) -> nn.Module:
        return train_with_friendly_noise(
            convnet(2, width=4),
            data=data,
            settings=Training(epochs=2, batch_size=8),
            friendly=FriendlyNoise(steps=2),
            warm_up_epochs=warm_up,
            seed=seed,
            runtime=runtime,
        )

    one = found(0, 1, runtime)
    assert seen == [
        ("train", 1, 1),
        ("noise", 16, 16),
        ("train", 1, 2),
        ("train", 2, 2),
    ]
    kept = found(0, 1, replace(EXACT, work_dir=tmp_path))
    again = found(0, 1, replace(EXACT, work_dir=tmp_path))  # read from what was kept
    for other in (kept, again):
        torch.testing.assert_close(one.state_dict(), other.state_dict())
    plain = train_classifier(
        convnet(2, width=4),
        data=data,
        settings=Training(epochs=2, batch_size=8),
        runtime=EXACT,
    )
    for other in (plain, found(0, 0)):
        weights = other.state_dict()
        assert not one.state_dict()["fc.weight"].equal(weights["fc.weight"])


def stage_of(progress: Progress) -> tuple[str, int, int]:
    return progress.stage, progress.done, progress.total


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 0.01}, "start_eps above 0 and up to eps"),
        ({"steps": 0}, "steps of at least 1"),
        ({"lr": 0.0}, "lr above 0"),
    ],
)
def test_settings_without_sense_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        FriendlyNoise(**settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="eps above 0"):
        RandomNoise(eps=0.0)
