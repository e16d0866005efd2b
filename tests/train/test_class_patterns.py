"""Patterns that were added are found again, and nothing where nothing was added."""

import numpy as np
import pytest
import scipy.fft
import scipy.optimize
import torch
from torch import Tensor

from bezoar.data import digit_images
from bezoar.models.cosine import cosine_transform, inverse_cosine_transform
from bezoar.train import class_patterns as module
from bezoar.train.class_patterns import LEAST_IMAGES, class_patterns

COUNT, CLASSES, SIDE = 900, 3, 16
LABELS = torch.arange(COUNT) % CLASSES


def natural(seed: int = 0) -> Tensor:
    """Return images in [0, 1] with the spectrum of photographs, brighter than grey."""
    stream = torch.Generator().manual_seed(seed)
    down = torch.arange(SIDE).float()
    fall = 1 / (1 + (down[:, None] ** 2 + down**2).sqrt())
    waves = torch.randn(COUNT, 3, SIDE, SIDE, generator=stream) * fall
    waves = waves + 3 * waves[:, :1]  # colours vary together
    return 0.5 + 0.05 * inverse_cosine_transform(waves, size=(SIDE, SIDE))


def stored(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def patches(height: float) -> Tensor:
    stream = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (CLASSES, 3, 4, 4), generator=stream) * 2.0 - 1
    return height * signs.repeat_interleave(4, 2).repeat_interleave(4, 3)


def pixel(height: float) -> Tensor:
    found = torch.zeros(CLASSES, 3, SIDE, SIDE)
    for label in range(CLASSES):
        found[label, :, 3 + label, 5] = height
    return found


def grain(height: float) -> Tensor:
    stream = torch.Generator().manual_seed(2)
    return height * (2 * torch.rand(CLASSES, 3, SIDE, SIDE, generator=stream) - 1)


def found_in(images: Tensor, labels: Tensor = LABELS, **limits: float) -> Tensor:
    return class_patterns(images, labels, num_classes=CLASSES, **limits).patterns


@pytest.mark.parametrize(
    ("added", "near"),
    [(patches(6 / 255), 0.97), (pixel(0.3), 0.99), (grain(8 / 255), 0.95)],
    ids=["patches", "pixel", "noise"],
)
def test_what_was_added_to_a_class_is_found(added: Tensor, near: float) -> None:
    found = found_in(stored(natural() + added[LABELS]))
    # What all classes share, and the mean of each, are not theirs alone.
    own = added - added.mean(0)
    own = own - own.mean((2, 3), keepdim=True)
    along = torch.cosine_similarity(found.flatten(1), own.flatten(1))
    assert along.min() > near, along
    missed = (found - own).square().mean().sqrt() / own.square().mean().sqrt()
    assert missed < 0.35
    assert found.mean((2, 3)).abs().max() < 1e-6


def test_where_nothing_was_added_nothing_is_found() -> None:
    assert found_in(stored(natural())).count_nonzero() == 0
    # Classes that look different, but smoothly so, as photographs of things do.
    slope = 0.03 * torch.linspace(0, torch.pi, SIDE).cos()
    looks = torch.stack([slope.expand(SIDE, SIDE), -slope.expand(SIDE, SIDE).T])
    looks = torch.cat([looks, torch.zeros(1, SIDE, SIDE)])[:, None]
    assert found_in(stored(natural() + looks[LABELS])).count_nonzero() == 0
    # Patterns that do not go with the class.
    stream = torch.Generator().manual_seed(3)
    others = LABELS[torch.randperm(COUNT, generator=stream)]
    mixed = natural() + patches(6 / 255)[others]
    assert found_in(stored(mixed)).count_nonzero() == 0


def test_one_class_may_carry_a_pattern_alone() -> None:
    added = pixel(0.3)
    added[1:] = 0
    found = found_in(stored(natural() + added[LABELS]))
    height = found[0, :, 3, 5] - found[1:, :, 3, 5].mean(0)
    assert height.allclose(torch.full((3,), 0.3), atol=0.02)


def test_classes_may_have_any_number_of_images() -> None:
    labels = torch.zeros(COUNT, dtype=torch.int64)
    labels[-160:-60], labels[-60:] = 1, 2
    clean = class_patterns(stored(natural()), labels, num_classes=4)
    assert clean.patterns.count_nonzero() == 0
    assert clean.too_few == ()  # nor is the fourth class, which has none
    found = found_in(stored(natural() + pixel(0.3)[labels]), labels)
    peaks = found.abs().amax(1).flatten(1).argmax(1)
    assert peaks[1:].tolist() == [4 * SIDE + 5, 5 * SIDE + 5]


def test_images_need_not_be_square() -> None:
    added = patches(6 / 255)[..., :8]
    found = found_in(stored(natural()[..., :8] + added[LABELS]))
    own = added - added.mean(0)
    own = own - own.mean((2, 3), keepdim=True)
    along = torch.cosine_similarity(found.flatten(1), own.flatten(1))
    assert along.min() > 0.95, along
    assert found_in(stored(natural()[..., :8])).count_nonzero() == 0
    line = stored(natural()[:, :, :1])
    assert found_in(line).count_nonzero() == 0


def test_the_order_of_images_and_classes_does_not_matter() -> None:
    images = stored(natural() + patches(6 / 255)[LABELS])
    found = found_in(images)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(4))
    assert found_in(images[order], LABELS[order]).allclose(found, atol=1e-6)
    swapped = found_in(images, CLASSES - 1 - LABELS).flip(0)
    assert swapped.allclose(found, atol=1e-6)


def test_classes_whose_images_are_alike_are_left_alone() -> None:
    digits = digit_images(size=8)
    count = len(digits.class_names)
    found = class_patterns(
        digits.images, digits.labels, num_classes=count, max_energy=0.002
    )
    assert found.too_strong == tuple(range(count))
    assert found.patterns.count_nonzero() == 0
    free = class_patterns(digits.images, digits.labels, num_classes=count)
    assert free.too_strong == ()
    assert free.patterns.square().mean((1, 2, 3)).min() > 0.002


def test_few_images_one_class_and_grey_ones_are_no_trouble() -> None:
    images = stored(natural() + patches(6 / 255)[LABELS])
    rare = LABELS.clone()
    rare[LABELS == 2] = 0
    rare[(LABELS == 2).nonzero().flatten()[: LEAST_IMAGES - 1]] = 2
    found = found_in(images, rare)
    whole = class_patterns(images, rare, num_classes=CLASSES)
    assert whole.too_few == (2,)
    assert found[2].count_nonzero() == 0
    assert found[1].count_nonzero() > 0
    assert found_in(images, torch.zeros_like(LABELS)).count_nonzero() == 0
    grey = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    shown = found_in(grey)
    assert shown.isfinite().all()
    assert shown[:, 0].allclose(shown[:, 2], atol=2e-3)
    assert found_in(torch.full_like(images, 7)).count_nonzero() == 0
    assert found_in(images[:, :, :1, :1].contiguous()).count_nonzero() == 0


def test_the_image_of_least_error_and_variation_is_that_of_a_plain_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 1)  # of weights that are all 1
    monkeypatch.setattr(module, "_TURNS", 2000)
    monkeypatch.setattr(module, "_SHARE", 0.3)
    stream = torch.Generator().manual_seed(5)
    given = torch.randn(1, 2, 5, 4, generator=stream, dtype=torch.float64)
    precision = torch.rand(1, 2, 5, 4, generator=stream, dtype=torch.float64) + 0.1
    precision[..., 0, 0] = 0
    laplace = module._laplace(5, 4, given.device)
    weight = 0.3 * module._noise_bound(precision, laplace).item()

    def cost(values: np.ndarray) -> float:
        image = values.reshape(2, 5, 4)
        waves = scipy.fft.dctn(image, axes=(1, 2), norm="ortho")
        error = (precision[0].numpy() * (waves - given[0].numpy()) ** 2).sum() / 2
        steps = [np.diff(image, axis=axis) for axis in (1, 2)]
        # A little rounder than the length, so that it has a slope everywhere.
        lengths = [np.sqrt((step**2).sum(0) + 1e-10).sum() for step in steps]
        return float(error + weight * sum(lengths))

    best = scipy.optimize.minimize(
        cost,
        np.zeros(40),
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10**6},
    )
    found, share = module._minimised(given, precision)
    assert 0 < share.item() < 1
    assert cost(found[0].numpy()) <= best.fun + 1e-4
    plain = torch.from_numpy(best.x).view(2, 5, 4)
    plain = plain - plain.mean((1, 2), keepdim=True)
    torch.testing.assert_close(found[0], plain, atol=2e-2, rtol=0)


def test_a_cosine_transform_is_that_of_scipy() -> None:
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(6)).double()
    found = cosine_transform(images)
    wanted = scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho")
    torch.testing.assert_close(found, torch.from_numpy(wanted))
    back = inverse_cosine_transform(found, size=(6, 5))
    torch.testing.assert_close(back, images)
    few = inverse_cosine_transform(found[..., :2, :3], size=(6, 5))
    rest = found.clone()
    rest[..., 2:, :], rest[..., 3:] = 0, 0
    torch.testing.assert_close(few, inverse_cosine_transform(rest, size=(6, 5)))
