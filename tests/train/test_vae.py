"""The loss by hand, a step against the plain loop, and a kill in the middle."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bezoar.bench.reference.dvae_plain import PlainDVAE, copied, plain_loss
from bezoar.data import ImageData, noise_images
from bezoar.errors import DivergedError, InputError, StorageError
from bezoar.models import DVAENet
from bezoar.runtime import Progress, Runtime
from bezoar.train import VAETraining, train_dvae
from bezoar.train.class_patterns import class_patterns
from bezoar.train.vae import dvae_loss, kl_per_location

SMALL = VAETraining(width=4, latent_width=8, epochs=3, batch_size=4)
FLOAT = Runtime(dtype=torch.float32)


def grid(value: float) -> Tensor:
    return torch.full((2, 256, 3, 3), float(value))


def test_the_rate_is_that_computed_by_hand() -> None:
    assert kl_per_location(grid(0), grid(0)).item() == 0
    assert kl_per_location(grid(1), grid(0)).item() == pytest.approx(128)
    # 256 / 2 * (4 - 1 - ln 4)
    assert kl_per_location(grid(0), grid(math.log(4))).item() == pytest.approx(
        206.55, abs=0.01
    )


def test_the_limit_has_no_slope_below_and_that_of_the_rate_above() -> None:
    flat = torch.zeros(2, 3, 4, 4)
    for value, slope in ((0.01, 0.0), (1.0, 0.01 / (2 * 9))):
        mean = grid(value).requires_grad_()
        kl = kl_per_location(mean, grid(0))
        loss, _ = dvae_loss(flat, flat, flat, kl, settings=VAETraining(), epoch=0)
        loss.backward()
        assert mean.grad is not None
        torch.testing.assert_close(mean.grad, slope * mean.detach())


def test_the_energy_counts_from_the_twelfth_of_sixty_epochs_and_beyond_its_bound() -> (
    None
):
    settings, flat = VAETraining(kl_weight=0), torch.full((1, 3, 4, 4), 0.5)
    kl = torch.tensor(0.0)
    faint = torch.full_like(flat, 0.04).requires_grad_()  # a mean square of 0.0016
    early, _ = dvae_loss(flat, faint, flat, kl, settings=settings, epoch=10)
    late, parts = dvae_loss(flat, faint, flat, kl, settings=settings, epoch=11)
    assert late.item() - early.item() == pytest.approx(0.002)
    assert parts[2].item() == pytest.approx(0.0016)
    (late - early).backward()
    assert faint.grad is not None
    assert faint.grad.abs().max() < 1e-9  # both have the slope of the error alone
    strong = torch.full_like(flat, 0.1)
    loss, _ = dvae_loss(flat, strong, flat, kl, settings=settings, epoch=11)
    assert loss.item() == pytest.approx(0.01 + 0.01)


def test_where_image_and_perturbation_leave_the_range_there_is_no_slope() -> None:
    image = torch.full((1, 3, 2, 2), 0.9)
    shown = torch.full_like(image, 0.3).requires_grad_()
    settings = VAETraining(kl_weight=0, perturbation_weight=0)
    loss, _ = dvae_loss(
        image, shown, image, torch.tensor(0.0), settings=settings, epoch=0
    )
    loss.backward()
    assert shown.grad is not None
    assert shown.grad.eq(0).all()


@pytest.mark.parametrize("with_tail", [False, True])
def test_loss_and_slopes_are_those_of_the_plain_loop(with_tail: bool) -> None:
    ours = DVAENet(10, width=4, latent_width=16).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = PlainDVAE(10, 4, with_tail=with_tail).train()
        logger = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    plain.load_state_dict(copied(ours.state_dict()), strict=not with_tail)
    data = noise_images(6, size=32)
    x, labels = data.images.float() / 255, data.labels
    noise = torch.randn(6, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    image, shown, mean, log_variance = ours(x, labels, noise)
    settings = VAETraining(nats=0.001)
    loss, _ = dvae_loss(
        image,
        shown,
        x,
        kl_per_location(mean, log_variance),
        settings=settings,
        epoch=11,
    )
    expected = plain_loss(
        plain,
        x,
        labels,
        noise,
        nats=0.001,
        kl_weight=0.01,
        limits_energy=True,
        logger=logger if with_tail else None,
    )
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    slopes = copied(
        {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    )
    for name, parameter in plain.named_parameters():
        if not name.startswith("tail"):
            # float32 through ten layers; biases before a norm have slopes of rounding
            torch.testing.assert_close(
                slopes[name], parameter.grad, atol=1e-5, rtol=1e-3
            )


def test_same_seed_same_weights_and_the_error_falls() -> None:
    data = noise_images(16)
    settings = replace(SMALL, epochs=6)
    one = train_dvae(data, settings=settings, runtime=FLOAT)
    two = train_dvae(data, settings=settings, runtime=FLOAT)
    other = train_dvae(data, settings=settings, seed=1, runtime=FLOAT)
    torch.testing.assert_close(
        one.network.state_dict(), two.network.state_dict(), atol=0, rtol=0
    )
    assert one.history == two.history != other.history
    assert one.history[-1]["reconstruction"] < one.history[0]["reconstruction"]


def test_a_training_that_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise Stop

    data = noise_images(8)
    whole = train_dvae(data, settings=SMALL, runtime=FLOAT)
    kept = replace(FLOAT, work_dir=tmp_path)
    with pytest.raises(Stop):
        train_dvae(data, settings=SMALL, runtime=replace(kept, progress=stop))
    seen: list[Progress] = []
    found = train_dvae(
        data, settings=SMALL, runtime=replace(kept, progress=seen.append)
    )
    assert [p.done for p in seen] == [3]
    torch.testing.assert_close(
        found.network.state_dict(), whole.network.state_dict(), atol=0, rtol=0
    )
    assert found.history == whole.history
    seen.clear()
    train_dvae(data, settings=SMALL, runtime=replace(kept, progress=seen.append))
    assert seen == []  # it was done
    train_dvae(
        data, settings=SMALL, seed=1, runtime=replace(kept, progress=seen.append)
    )
    assert len(seen) == 3  # another training is not continued
    (tmp_path / "train.training.safetensors").write_bytes(b"{}")
    with pytest.raises(StorageError, match="expected a checkpoint"):
        train_dvae(data, settings=SMALL, runtime=kept)


def test_images_without_labels_and_losses_without_end_are_told() -> None:
    data = noise_images(8)
    bare = ImageData(
        images=data.images,
        labels=torch.full((8,), -1),
        ids=data.ids,
        class_names=(),
    )
    with pytest.raises(InputError, match="expected labelled images for D-VAE"):
        train_dvae(bare, settings=SMALL)
    with pytest.raises(DivergedError, match="expected a finite loss"):
        train_dvae(data, settings=replace(SMALL, lr=1e30), runtime=FLOAT)


def test_without_a_decoder_a_class_has_its_pattern() -> None:
    data = noise_images(400, size=8)
    labels = torch.arange(400) % 4  # of ten classes; the others stay without any
    images = 96 + data.images // 4
    images[labels == 1, :, 2, 5] = 255  # a pixel that is always white
    data = ImageData(
        images=images,
        labels=labels,
        ids=data.ids,
        class_names=tuple("abcdefghij"),
    )
    settings = replace(
        SMALL, perturbation_input="mean", kl_weight=0, perturbation_mse=0.02
    )
    found = train_dvae(data, settings=settings, runtime=FLOAT)
    wanted = class_patterns(images, labels, num_classes=10).patterns
    means = found.network.get_buffer("means")
    assert means.equal(wanted)
    assert found.too_strong == ()
    taken = found.network.perturbation(means, labels, features=means)
    assert taken.equal(wanted[labels])
    assert taken[labels == 1][:, :, 2, 5].mean() > 0.2
    # The loss has known of them from the first step on.
    energy = taken.square().mean().item()
    assert found.history[0]["energy"] == pytest.approx(energy, rel=0.1)
    names = found.network.state_dict()
    assert not any("perturbation_decoder" in name for name in names)
    # A training that goes on from it finds them anew, and leaves it as it was.
    clean = replace(data, images=data.images.roll(1, 0))
    again = train_dvae(clean, settings=settings, start=found.network, runtime=FLOAT)
    assert not again.network.get_buffer("means").equal(wanted)
    assert means.equal(wanted)
    small = replace(settings, perturbation_mse=5e-4)
    limited = train_dvae(data, settings=small, runtime=FLOAT)
    assert limited.too_strong == (1,)
    assert limited.network.get_buffer("means")[1].count_nonzero() == 0
    free = replace(small, perturbation_weight=0.0)
    assert train_dvae(data, settings=free, runtime=FLOAT).too_strong == ()
