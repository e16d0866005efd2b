"""Masks whose end can be worked out, and the plain loop to compare with."""

import pytest
import torch
from torch import Tensor, nn

from bezoar.bench.reference.cognitive_distillation import distill_plain
from bezoar.detect.mask_distillation import (
    _SLOPES,
    MaskSettings,
    _Spread,
    distill_masks,
    fill_colours,
    flat,
    other_images,
    total_variation,
)
from bezoar.runtime import generator


def settings(
    *, steps: int = 100, l1: float = 0.01, tv: float = 10.0, scale: int = 1
) -> MaskSettings:
    return MaskSettings(
        match="logits",
        steps=steps,
        lr=0.1,
        betas=(0.1, 0.1),
        l1_weight=l1,
        tv_weight=tv,
        mask_scale=scale,
    )


def fills(count: int, steps: int) -> Tensor:
    keys = [str(i) for i in range(count)]
    return fill_colours(keys, steps=steps, channels=3, seed=0)


def uniform(count: int, *, high: float = 1.0) -> Tensor:
    return high * torch.rand(count, 3, 32, 32, generator=generator(0, "uniform"))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :4]


# The L1 term alone: theta falls by lr a step in closed form (worked out apart).
@pytest.mark.parametrize(
    ("steps", "norm"),
    [
        (1, 878.756),
        (5, 748.814),
        (10, 512.402),
        (20, 122.394),
        (30, 18.598),
        (50, 0.393),
        (100, 0.008),
    ],
)
def test_oracle_a_constant_model_lets_the_mask_vanish(steps: int, norm: float) -> None:
    masks = distill_masks(
        uniform(2),
        flat(fills(2, steps)),
        forward=Constant(),
        settings=settings(steps=steps, tv=0.0),
    )
    total = masks.flatten(1).sum(1)
    torch.testing.assert_close(total, torch.full((2,), norm), rtol=1e-3, atol=0.01)


def test_total_variation_of_masks_known_by_hand() -> None:
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float()
    edge = (torch.arange(32) < 16).float()[:, None].expand(32, 32)
    found = total_variation(torch.stack([torch.full((32, 32), 0.7), board, edge]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.9375, 0.03125]))


class Corner(nn.Module):
    """Sees the lower right 3x3 alone, and only when it is bright."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, -3:, -3:].flatten(1).mean(1)
        return torch.stack([20 * torch.relu(bright - 0.5), 0 * bright], dim=1)


def test_oracle_the_mask_keeps_the_trigger_and_nothing_else() -> None:
    images = uniform(3)
    images[:, :, -3:, -3:] = 1
    (mask, *_) = distill_masks(
        images, flat(fills(3, 100)), forward=Corner(), settings=settings()
    )
    inside = mask[-3:, -3:]
    outside = (mask.sum() - inside.sum()) / (32 * 32 - 9)
    assert inside.min() > 0.99
    assert outside < 0.01


class Gated(nn.Module):
    """A trigger takes over from a linear classifier of the whole image."""

    def __init__(self) -> None:
        super().__init__()
        weight = 0.3 * torch.randn(10, 3 * 32 * 32, generator=generator(0, "gated"))
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(40 * (x[:, :, -3:, -3:].flatten(1).mean(1) - 0.8))
        target = 10 * nn.functional.one_hot(torch.tensor(0), 10)
        linear = (x - 0.5).flatten(1) @ self.weight.T
        return gate[:, None] * target + (1 - gate)[:, None] * linear


def test_oracle_a_triggered_image_needs_a_small_mask() -> None:
    images = uniform(4, high=0.6)
    images[:2, :, -3:, -3:] = 1
    model = Gated().requires_grad_(False)
    masks = distill_masks(
        images, flat(fills(4, 100)), forward=model, settings=settings()
    )
    norms = masks.flatten(1).sum(1)
    assert norms[:2].max() <= 12  # measured 9
    assert norms[2:].min() >= 300  # measured 368


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        last = nn.Linear(8 * 8 * 8, 10)
        last.weight.data *= 30  # logits large enough to hold masks up
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, stride=4),
            nn.Tanh(),
            nn.Flatten(),
            last,
        ).eval()


def test_closed_form_equals_the_plain_loop() -> None:
    """Ten steps of the plain loop; later, rounding is amplified by sign-like steps."""
    images, colours = uniform(5), fills(5, 10)
    plain = distill_plain(
        images, colours, model=network(), lr=0.1, l1_weight=0.003, tv_weight=10.0
    )
    model = network().requires_grad_(False)
    fast = distill_masks(
        images, flat(colours), forward=model, settings=settings(steps=10, l1=0.003)
    )
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


def test_full_parity_over_100_steps_in_float64() -> None:
    """With rounding out of the way the two are the same algorithm to the end."""
    images, colours = uniform(3).double(), fills(3, 100).double()
    model = network().double()
    plain = distill_plain(
        images, colours, model=model, lr=0.1, l1_weight=0.003, tv_weight=10.0
    )
    fast = distill_masks(
        images,
        flat(colours),
        forward=model.requires_grad_(False),
        settings=settings(l1=0.003),
    )
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=0)
    assert plain.std() > 0.05  # masks with something in them


def test_enlargement_is_bilinear_and_its_adjoint_is_exact() -> None:
    stream = generator(0, "spread")
    spread = _Spread(torch.Size((32, 30)), scale=4, like=torch.zeros(1).double())
    coarse = torch.rand(2, *spread.coarse, generator=stream).double()
    fine = torch.rand(2, 32, 30, generator=stream).double()
    size = (32, 30)
    expected = nn.functional.interpolate(coarse[:, None], size=size, mode="bilinear")
    # the matrices hold float32 weights
    torch.testing.assert_close(spread.up(coarse), expected[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        (spread.up(coarse) * fine).sum(), (coarse * spread.down(fine)).sum()
    )


def test_coarse_masks_of_a_constant_model_are_those_of_single_pixels() -> None:
    one, two = (
        distill_masks(
            uniform(2),
            flat(fills(2, 3)),
            forward=Constant(),
            settings=settings(steps=3, tv=0.0, scale=scale),
        )
        for scale in (1, 2)
    )
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)  # Adam's eps differs


def test_company_and_order_do_not_matter() -> None:
    model, images, colours = network().requires_grad_(False), uniform(4), fills(4, 30)
    masks = distill_masks(
        images, flat(colours), forward=model, settings=settings(steps=30)
    )
    order = torch.tensor([2, 0, 3, 1])
    again = distill_masks(
        images[order], flat(colours[order]), forward=model, settings=settings(steps=30)
    )
    assert again.equal(masks[order])


def test_colours_belong_to_the_image_alone() -> None:
    both = fill_colours(["a", "b"], steps=4, channels=3, seed=1)
    alone = fill_colours(["b"], steps=4, channels=3, seed=1)
    assert both[1].equal(alone[0])
    assert not both[0].equal(both[1])
    assert not fill_colours(["b"], steps=4, channels=3, seed=2).equal(alone)


@pytest.mark.parametrize("match", ["probabilities", "logits"])
def test_the_distance_has_the_slope_of_autograd(match: str) -> None:
    stream = generator(0, "slope")
    output = (3 * torch.randn(5, 7, generator=stream)).requires_grad_()
    target = 3 * torch.randn(5, 7, generator=stream)
    if match == "probabilities":
        distance = (output.softmax(1) - target.softmax(1)).abs().sum(1)
    else:
        distance = (output - target).abs().mean(1)
    (expected,) = torch.autograd.grad(distance.sum(), output)
    found = _SLOPES[match](output.detach(), target)
    torch.testing.assert_close(found, expected)


def test_images_behind_the_mask_are_drawn_for_each_image_alone() -> None:
    pool = uniform(6)
    both = other_images(["a", "b"], steps=8, pool=pool, seed=1)
    alone = other_images(["b"], steps=8, pool=pool, seed=1)
    shown = [both(step) for step in range(8)]
    assert all(alone(step)[0].equal(shown[step][1]) for step in range(8))
    assert any(not pair[0].equal(pair[1]) for pair in shown)
    known = {image.sum().item() for image in pool}
    assert all(image.sum().item() in known for pair in shown for image in pair)
