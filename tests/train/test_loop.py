"""Training against closed forms, a plain loop, and a kill in the middle."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bezoar.data import ImageData, digit_images, noise_images
from bezoar.errors import DivergedError, InputError, StorageError
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import Training, forget_training, train_classifier
from bezoar.train.augment import crop_and_flip, cut_out

FLOAT = Runtime(dtype=torch.float32)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 2),
        )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_one_step_is_sgd_with_nesterov_momentum_written_out() -> None:
    data = noise_images(8)
    linear = nn.Linear(192, 2)
    start = nn.Sequential(nn.Flatten(), linear)
    settings = Training(epochs=4, schedule="steps", lr=0.1, weight_decay=0.01)
    trained = train_classifier(start, data=data, settings=settings, runtime=FLOAT)
    weight = linear.weight.detach().double()
    bias = linear.bias.detach().double()
    images = data.images.double().flatten(1) / 255
    truth = nn.functional.one_hot(data.labels, 2).double()
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for epoch in range(4):  # a batch holds all 8 images: one step an epoch
        error = ((images @ weight.T + bias).softmax(1) - truth) / 8
        slope, bias_slope = (
            error.T @ images + 0.01 * weight,
            error.sum(0) + 0.01 * bias,
        )
        speed, bias_speed = 0.9 * speed + slope, 0.9 * bias_speed + bias_slope
        lr = 0.01 if epoch >= 3 else 0.1
        weight = weight - lr * (slope + 0.9 * speed)
        bias = bias - lr * (bias_slope + 0.9 * bias_speed)
    torch.testing.assert_close(
        trained.state_dict()["1.weight"].double(), weight, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("settings", "progress", "rate"),
    [
        (Training(lr=0.1), 0.0, 0.0),
        (Training(lr=0.1), 0.1, 0.05),
        (Training(lr=0.1), 0.2, 0.1),
        (Training(lr=0.1), 0.6, 0.05),
        (Training(lr=0.1), 1.0, 0.0),
        (Training.paper(), 0.74, 0.1),
        (Training.paper(), 0.75, 0.01),
    ],
)
def test_step_sizes(settings: Training, progress: float, rate: float) -> None:
    assert settings.rate(progress) == pytest.approx(rate)


def test_training_learns_and_leaves_the_model_alone() -> None:
    digits = digit_images(size=8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    before = weights(model)
    trained = train_classifier(
        model, data=digits, settings=Training(epochs=20, lr=0.5), runtime=FLOAT
    )
    outputs = trained(digits.images.float() / 255).argmax(1)
    assert (outputs == digits.labels).float().mean() > 0.9
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)
    assert not trained.training


def test_same_seed_same_weights_and_global_state_untouched() -> None:
    data, settings = noise_images(64), Training(epochs=2, augment="crop_flip")
    state = torch.get_rng_state()
    first, second, other = (
        weights(train_classifier(network(), data=data, settings=settings, seed=seed))
        for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert not first["0.weight"].equal(other["0.weight"])
    assert torch.get_rng_state().equal(state)


class Killed(Exception):
    """Stands for the signal that ends a run."""


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data, settings = noise_images(64), Training(epochs=4)
    whole = train_classifier(network(), data=data, settings=settings, runtime=FLOAT)
    seen: list[int] = []

    def kill_after_two(progress: Progress) -> None:
        seen.append(progress.done)
        if progress.done == 2:
            raise Killed

    runtime = replace(FLOAT, work_dir=tmp_path, progress=kill_after_two)
    with pytest.raises(Killed):
        train_classifier(network(), data=data, settings=settings, runtime=runtime)
    runtime = replace(runtime, progress=lambda p: seen.append(p.done))
    resumed = train_classifier(network(), data=data, settings=settings, runtime=runtime)
    assert seen == [1, 2, 3, 4]
    torch.testing.assert_close(weights(resumed), weights(whole), atol=0, rtol=0)
    # killed before the network was saved, nothing is lost
    again = train_classifier(network(), data=data, settings=settings, runtime=runtime)
    assert seen == [1, 2, 3, 4]
    torch.testing.assert_close(weights(again), weights(whole), atol=0, rtol=0)
    forget_training(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_data_is_not_continued(tmp_path: Path) -> None:
    def kill(_: Progress) -> None:
        raise Killed

    settings = Training(epochs=2)
    runtime = replace(FLOAT, work_dir=tmp_path, progress=kill)
    with pytest.raises(Killed):
        train_classifier(
            network(), data=noise_images(64), settings=settings, runtime=runtime
        )
    other = noise_images(64, seed=1)
    seen: list[int] = []
    runtime = replace(runtime, progress=lambda p: seen.append(p.done))
    train_classifier(network(), data=other, settings=settings, runtime=runtime)
    assert seen == [1, 2]


def test_a_checkpoint_of_another_start_is_not_continued(tmp_path: Path) -> None:
    data, settings = noise_images(64), Training(epochs=2)
    runtime = replace(FLOAT, work_dir=tmp_path)
    first = network()
    train_classifier(first, data=data, settings=settings, runtime=runtime)
    other = copy.deepcopy(first)
    with torch.no_grad():
        next(other.parameters()).mul_(0.5)
    again = train_classifier(other, data=data, settings=settings, runtime=runtime)
    expected = train_classifier(other, data=data, settings=settings, runtime=FLOAT)
    torch.testing.assert_close(weights(again), weights(expected), atol=0, rtol=0)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "training.safetensors").write_bytes(b"half")
    with pytest.raises(StorageError, match="remove it to train from the start"):
        train_classifier(
            network(),
            data=noise_images(8),
            runtime=replace(FLOAT, work_dir=tmp_path),
        )


def test_one_class_cannot_be_trained_on() -> None:
    data = noise_images(8).subset(torch.arange(8) % 2 == 0)
    with pytest.raises(InputError, match="at least 2 classes to train on, got 1"):
        train_classifier(network(), data=data)
    bare = ImageData(
        images=data.images, labels=data.labels - 1, ids=data.ids, class_names=()
    )
    with pytest.raises(InputError, match="got 0"):
        train_classifier(network(), data=bare)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    settings = Training(epochs=5, lr=1e30, schedule="steps")
    with pytest.raises(DivergedError, match="lower lr"):
        train_classifier(model, data=noise_images(32), settings=settings, runtime=FLOAT)


def test_crops_are_windows_of_the_padded_image_or_their_mirror() -> None:
    images = noise_images(40, size=8).images
    moved = crop_and_flip(images, pad=2, stream=generator(0, "crop"))
    padded = nn.functional.pad(images.float(), (2,) * 4, mode="reflect").byte()
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)  # n c 5 5 8 8
    mirrored = 0
    for i in range(40):
        straight = (windows[i] == moved[i][:, None, None]).all((0, 3, 4))
        flipped = (windows[i] == moved[i].flip(2)[:, None, None]).all((0, 3, 4))
        assert straight.any() or flipped.any()
        mirrored += int(flipped.any())
    assert 8 <= mirrored <= 32  # half of 40, five deviations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "at least 1, got 0 and 64"),
        ({"batch_size": 0}, "at least 1, got 15 and 0"),
        ({"lr": -1.0}, "lr above 0"),
        ({"lr": float("nan")}, "lr above 0"),
        ({"weight_decay": -0.1}, "weight_decay of at least 0"),
    ],
)
def test_settings_without_sense_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Training(**settings)  # type: ignore[arg-type]


def test_dropout_follows_the_seed_and_the_global_state_stays() -> None:
    data = noise_images(8)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 2))
    settings = Training(epochs=1, schedule="steps")
    before = torch.get_rng_state()
    first, again, other = (
        train_classifier(
            model, data=data, settings=settings, seed=seed, runtime=FLOAT
        ).state_dict()["2.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(before)
    assert first.equal(again)
    assert not first.equal(other)


def test_cut_out_blackens_one_square_around_a_place_in_the_image() -> None:
    images = torch.full((500, 1, 9, 9), 7, dtype=torch.uint8)
    cut = cut_out(images, generator(0, "cut"), size=3)
    assert (images == 7).all()
    holes = (cut[:, 0] == 0).sum((1, 2))
    assert set(holes.tolist()) == {4, 6, 9}  # whole, or cut off by an edge or corner
    middle = cut[holes == 9, 0] == 0
    assert (middle.any(2).sum(1) == 3).all()
    assert (middle.any(1).sum(1) == 3).all()
    share = (cut[:, 0] == 0).float().mean(0)
    assert share[4, 4].item() == pytest.approx(9 / 81, abs=0.05)
