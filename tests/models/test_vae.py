"""The autoencoder's sizes, its decoders, and its way to disk and back."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bezoar.errors import InputError, ModelError
from bezoar.models import DVAENet, load_dvae, save_dvae

TINY = {"width": 4, "latent_width": 8, "image_size": (8, 8)}


def tiny(**more: object) -> DVAENet:
    return DVAENet(2, **{**TINY, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "count"), [(64, 1_181_382), (16, 136_374), (12, 92_346), (8, 54_942)]
)
def test_sizes_are_those_counted_by_hand(width: int, count: int) -> None:
    net = DVAENet(10, width=width, latent_width=4 * width)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("num_downsamples", [1, 2, 3])
@pytest.mark.parametrize("embedding", ["spatial", "vector"])
def test_images_come_out_in_their_size(num_downsamples: int, embedding: str) -> None:
    net = tiny(num_downsamples=num_downsamples, embedding=embedding, image_size=(8, 16))
    images, labels = torch.rand(3, 3, 8, 16), torch.tensor([0, 1, 1])
    shown, perturbation, mean, log_variance = net(images, labels)
    assert shown.shape == perturbation.shape == images.shape
    assert mean.shape == log_variance.shape == (3, *net.latent_shape)


@pytest.mark.parametrize("told", ["latent", "features", "class"])
def test_the_label_changes_the_perturbation_and_not_the_image(told: str) -> None:
    net = tiny(perturbation_input=told).eval()
    images = torch.rand(2, 3, 8, 8)
    noise = torch.randn(2, *net.latent_shape)
    one = net(images, torch.tensor([0, 1]), noise)
    other = net(images, torch.tensor([1, 0]), noise)
    assert one[0].equal(other[0])
    assert not one[1].allclose(other[1], atol=1e-3)
    assert one[1].equal(net(images, torch.tensor([0, 1]), noise)[1])


def test_the_image_stays_in_range_and_the_perturbation_need_not() -> None:
    net = tiny().eval()
    latent = 100 * torch.randn(4, 8, 4, 4)
    assert net.reconstruct(latent).aminmax().max <= 1
    with torch.no_grad():
        last = net.perturbation_decoder[-1]
        assert isinstance(last.bias, torch.Tensor)
        last.bias += 2
    labels = torch.zeros(4, dtype=torch.int64)
    assert net.perturbation(latent, labels, features=latent).max() > 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_what_the_decoders_normalise_over_decides_whether_brightness_is_kept(
    norm: str, tmp_path: Path
) -> None:
    net = tiny(decoder_norm=norm).eval()
    first = next(i for i, m in enumerate(net.image_decoder) if isinstance(m, nn.ReLU))
    features = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    normalise = net.image_decoder[first - 1]
    lifted = normalise(features + 1) - normalise(features)
    expected = 0.0 if norm == "instance" else 1.0
    torch.testing.assert_close(
        lifted, torch.full_like(lifted, expected), atol=1e-4, rtol=0
    )
    save_dvae(net, tmp_path / "net.safetensors")
    again = load_dvae(tmp_path / "net.safetensors")
    assert again.settings == net.settings


def test_without_noise_the_mean_is_taken() -> None:
    net = tiny().eval()
    mean, log_variance = torch.randn(2, 8, 4, 4), torch.zeros(2, 8, 4, 4)
    still = torch.zeros_like(mean)
    assert net.latent(mean, log_variance, None).equal(
        net.latent(mean, log_variance, still)
    )


def test_a_network_comes_back_from_disk(tmp_path: Path) -> None:
    net, path = tiny(num_downsamples=2), tmp_path / "net.safetensors"
    save_dvae(net, path)
    found = load_dvae(path)
    assert found.settings == net.settings
    torch.testing.assert_close(found.state_dict(), net.state_dict(), atol=0, rtol=0)
    save_dvae(tiny(seed=1, num_downsamples=2), tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").replace(path)
    with pytest.raises(ModelError, match="restore the pair"):
        load_dvae(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ModelError, match="expected the sizes of a D-VAE"):
        load_dvae(path)
    with pytest.raises(ModelError, match=r"ends in \.safetensors"):
        save_dvae(net, tmp_path / "net.pt")


@pytest.mark.parametrize("more", [{"image_size": (7, 8)}, {"num_downsamples": 4}])
def test_sizes_that_do_not_fit_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(InputError, match="sides are multiples of"):
        tiny(**more)
