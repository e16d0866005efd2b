"""The folded network against the plain one, and energies of any image size."""

import pytest
import torch
from torch import Tensor

from bezoar.bench.reference.langevin import plain_energy
from bezoar.errors import ModelError
from bezoar.models.energy import EnergyNet, energy_gradient
from bezoar.runtime import generator


def states(*shape: int) -> Tensor:
    return 2 * torch.rand(shape, generator=generator(0, "states")) - 1


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (32, 24)])
def test_folded_pooling_is_exact(patch_size: int, size: tuple[int, int]) -> None:
    net = EnergyNet(num_filters=8, patch_size=patch_size).requires_grad_(False)
    x = states(3, 3, *size)
    plain = x.clone().requires_grad_()
    expected = plain_energy(net, plain)
    (slope,) = torch.autograd.grad(expected.sum(), plain)
    folded = net.folded()
    torch.testing.assert_close(folded(x), expected.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(folded.slope(x), slope, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_weights_learn_through_the_fold_as_through_pooling(patch_size: int) -> None:
    net = EnergyNet(num_filters=4, patch_size=patch_size)
    x = states(2, 3, 16, 16)
    grads = [
        torch.autograd.grad(energies.sum(), list(net.parameters()))
        for energies in (net.folded()(x), plain_energy(net, x))
    ]
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-4)


def test_counts_of_parameters_are_those_of_the_paper_code() -> None:
    counts = {
        (nf, p): sum(
            w.numel() for w in EnergyNet(num_filters=nf, patch_size=p).parameters()
        )
        for nf, p in ((128, 1), (64, 1), (32, 1), (32, 2))
    }
    expected = {(128, 1): 1_053_824, (64, 1): 264_768, (32, 1): 66_848, (32, 2): 69_728}
    assert counts == expected


def test_images_in_0_1_are_states_in_minus_1_1() -> None:
    net = EnergyNet(num_filters=4)
    x = states(2, 3, 16, 16)
    torch.testing.assert_close(net((x + 1) / 2), net.folded()(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_squares_of_pixels_have_the_energies_of_their_images(patch_size: int) -> None:
    folded = EnergyNet(num_filters=8, patch_size=patch_size).folded().detached()
    x = states(3, 3, 16, 24)
    squares = folded.squares(x)
    assert folded.images(squares).equal(x)
    assert folded.images(squares).is_contiguous()
    assert folded.of_squares(squares).equal(folded(x))
    slope = folded.slope(squares, in_squares=True)
    assert folded.images(slope).equal(folded.slope(x))


def test_odd_sizes_are_filled_up_by_reflection() -> None:
    net = EnergyNet(num_filters=4, patch_size=2)
    x = states(2, 3, 19, 27).requires_grad_()
    filled = torch.nn.functional.pad(x, (0, 5, 0, 5), mode="reflect")
    assert net.folded()(x).equal(net.folded()(filled))
    expected = plain_energy(net, filled)
    torch.testing.assert_close(net.folded()(x), expected, atol=1e-6, rtol=1e-5)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    folded = net.folded().detached()
    torch.testing.assert_close(folded.slope(x), slope, atol=1e-6, rtol=1e-4)
    assert energy_gradient(net, x).shape == x.shape
    assert net.drift_scale(19, 27) == 24 * 32 / 32**2


def test_a_pixel_drifts_alike_in_small_and_large_images() -> None:
    net = EnergyNet(num_filters=4)
    small = states(1, 3, 96, 96)
    large = torch.nn.functional.pad(small, (48, 48, 48, 48), mode="reflect")
    near, far = energy_gradient(net, small), energy_gradient(net, large)
    # 40 pixels off the border no layer sees it: the networks look 30 pixels far
    torch.testing.assert_close(
        near[..., 40:56, 40:56], far[..., 88:104, 88:104], atol=1e-5, rtol=1e-4
    )


def test_the_slope_leaves_no_trace() -> None:
    net = EnergyNet(num_filters=4)
    x = states(2, 3, 16, 16)
    energy_gradient(net, x)
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    "sizes",
    [{"num_filters": 0}, {"patch_size": 0}, {"in_channels": 0}, {"image_size": (4, 4)}],
)
def test_sizes_without_sense_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="expected"):
        EnergyNet(**sizes)  # type: ignore[arg-type]
