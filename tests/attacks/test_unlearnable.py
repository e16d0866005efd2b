"""Attacks that make images unlearnable: what they add, by hand and by plain loops."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bezoar.attacks import AR, EM, LSP, OPS, PIL, REM, TAP, TUE, ClassNoise, CUDAFilter
from bezoar.attacks.ar import filters, nearest
from bezoar.attacks.ops import shortcuts
from bezoar.attacks.tue import centroid_slope, centroids
from bezoar.data import ImageData, digit_images, noise_images
from bezoar.errors import InputError
from bezoar.metrics import separability
from bezoar.models import Architecture
from bezoar.models.cosine import cosine_transform
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

DIGITS = digit_images().take(torch.arange(600))
ATTACKS: tuple[Callable[..., LSP | OPS | AR], ...] = (LSP, OPS, AR)


def added(data: ImageData, attack: LSP | OPS | AR, seed: int = 0) -> Tensor:
    poisoned = attack.poison(data, seed=seed).data.images
    return (poisoned.float() - data.images.float()) / 255


@pytest.mark.parametrize("attack", ATTACKS)
def test_labels_are_right_and_a_share_is_a_part_of_a_larger_share(
    attack: Callable[..., LSP | OPS | AR],
) -> None:
    few, more = (attack(poison_rate=rate).poison(DIGITS) for rate in (0.2, 0.5))
    assert few.data.labels.equal(DIGITS.labels)
    assert few.poison_rate == pytest.approx(0.2)
    assert more.poison_rate == pytest.approx(0.5)
    assert (few.is_poison & ~more.is_poison).sum() == 0
    assert few.target_class is None
    same = few.data.images == DIGITS.images
    assert same[~few.is_poison].all()
    assert not same[few.is_poison].flatten(1).all(1).any()
    again = attack(poison_rate=0.2).poison(DIGITS)
    assert again.data.images.equal(few.data.images)


def test_lsp_has_the_published_length_and_even_patches() -> None:
    shown = LSP().perturbation(DIGITS)
    lengths = shown.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((600,), 6 / 255 * math.sqrt(3072)))
    cells = shown.unfold(2, 8, 8).unfold(3, 8, 8)
    assert cells.equal(cells[..., :1, :1].expand_as(cells))
    means = torch.stack([shown[DIGITS.labels == c].mean(0) for c in range(10)])
    cosine = torch.cosine_similarity(
        shown.flatten(1), means[DIGITS.labels].flatten(1)
    ).mean()
    assert cosine.item() == pytest.approx(0.93, abs=0.02)  # measured beforehand
    assert separability(shown, DIGITS.labels)["pixels"] >= 0.99


def test_lsp_fits_images_that_are_no_multiple_of_a_patch() -> None:
    shown = LSP(patch_size=5).perturbation(noise_images(4, size=8))
    assert shown.shape == (4, 3, 8, 8)
    assert shown.flatten(1).norm(dim=1).allclose(torch.tensor(6 / 255 * 192**0.5))


def brute_force(data: ImageData) -> list[tuple[int, int, list[float]]]:
    """The published search: every pixel, every corner colour, every image."""
    taken, found = set(), []
    for label in range(len(data.class_names)):
        x = data.images[data.labels == label].double() / 255
        best: tuple[float, int, int, list[float]] | None = None
        for row in range(8):
            for column in range(8):
                for corner in range(8):
                    colour = [float(corner >> bit & 1) for bit in (2, 1, 0)]
                    if (row, column, corner) in taken:
                        continue
                    apart = (torch.tensor(colour) - x[:, :, row, column]).abs()
                    score = (apart.mean() / apart.std(correction=0)).item()
                    if best is None or score > best[0]:
                        best = score, row, column, colour
        assert best is not None
        _, row, column, colour = best
        taken.add((row, column, int("".join(str(int(v)) for v in colour), 2)))
        found.append((row, column, colour))
    return found


def test_ops_is_what_a_search_through_everything_finds() -> None:
    data = noise_images(12)
    found = [
        (row, column, colour.tolist())
        for (((row, column), colour),) in shortcuts(data, num_pixels=1)
    ]
    assert found == brute_force(data)
    shown = added(data, OPS())
    assert (shown != 0).any(1).flatten(1).sum(1).eq(1).all()


def test_ops_gives_every_class_its_own_pixels() -> None:
    pixels = shortcuts(DIGITS, num_pixels=3)
    every = {(place, tuple(v.tolist())) for own in pixels for place, v in own}
    assert len(every) == 30


def test_ar_follows_the_recurrence_of_its_class_and_nothing_else_tells_it() -> None:
    attack = AR()
    shown = attack.perturbation(DIGITS)
    torch.testing.assert_close(shown.flatten(1).norm(dim=1), torch.ones(600))
    bank = filters(10, 3, seed=0)
    assert nearest(shown, bank).equal(DIGITS.labels)
    one, kernel = shown[0], bank[DIGITS.labels[0]]
    told = sum(
        kernel[:, i, j, None, None] * one[:, i : i + 30, j : j + 30]
        for i in range(3)
        for j in range(3)
    )
    assert isinstance(told, Tensor)
    torch.testing.assert_close(told, one[:, 2:, 2:], atol=1e-4, rtol=0)
    found = separability(shown, DIGITS.labels)
    assert found["pixels"] <= 0.5
    assert found["autocorrelation"] >= 0.9


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_makes_no_sense_is_refused(
    attack: Callable[..., LSP | OPS | AR],
) -> None:
    for rate in (0.0, 1.1):
        with pytest.raises(InputError, match="expected a poison_rate"):
            attack(poison_rate=rate)
    with pytest.raises(InputError, match="takes at least one of 4 images"):
        attack(poison_rate=0.01).poison(noise_images(4))
    data = noise_images(4)
    bare = ImageData(
        images=data.images, labels=torch.full((4,), -1), ids=data.ids, class_names=()
    )
    with pytest.raises(InputError, match="expected labelled images"):
        attack().poison(bare)


def test_settings_of_one_attack_alone_are_checked() -> None:
    for make in (
        lambda: LSP(eps=0),
        lambda: LSP(patch_size=0),
        lambda: OPS(num_pixels=0),
        lambda: AR(length=0),
    ):
        with pytest.raises(InputError, match=r"expected (eps|a patch|num_|a length)"):
            make()


def test_class_noise_is_one_pattern_a_class() -> None:
    data = noise_images(6, size=16)
    for shape, count in (("full", 256), ("patch", 64)):
        shown = ClassNoise(shape=shape).perturbation(data)  # type: ignore[arg-type]
        assert shown[0].equal(shown[2])
        assert not shown[0].equal(shown[1])
        assert shown.abs().max() <= 8 / 255
        assert (shown[0] != 0).any(0).sum() == count
    smooth = ClassNoise(shape="smooth").perturbation(data)
    assert smooth[0].equal(smooth[2])
    assert smooth.abs().amax((1, 2, 3)).allclose(torch.tensor(8 / 255))
    waves = cosine_transform(smooth)
    waves[..., :4, :4] = 0
    assert waves.abs().max() < 1e-6


def test_the_filter_of_a_class_can_be_read_off_its_images() -> None:
    attack, data = CUDAFilter(), noise_images(2, size=16)
    poisoned = attack.poison(data).data.images
    kernels = attack.filters(2)
    for image, new, kernel in zip(data.images, poisoned, kernels, strict=True):
        x = torch.nn.functional.pad(image.double() / 255, (1, 1, 1, 1))
        patches = x.unfold(1, 3, 1).unfold(2, 3, 1).reshape(-1, 9)
        target = new.double().flatten()[:, None] / 255
        found = torch.linalg.lstsq(patches, target).solution.flatten()
        expected = kernel.flatten().double()
        # up to scale, and to the rounding of grey levels
        torch.testing.assert_close(found / found.max(), expected, atol=0.01, rtol=0)


def test_em_leaves_a_network_little_to_err_about() -> None:
    seen: list[Progress] = []
    attack = EM(
        arch="convnet", width=4, max_rounds=3, batch_size=32, steps=10, stop_error=0.0
    )
    data = noise_images(32, size=16)
    runtime = Runtime(progress=seen.append)
    poisoned = attack.poison(data, runtime=runtime).data.images
    change = (poisoned.int() - data.images.int()).abs()
    assert change.max() == 8  # whole grey levels, and none beyond
    errors = [p.metrics["error"] for p in seen if p.stage == "craft"]
    assert len(errors) == 3
    assert errors[-1] == 0


def test_pil_is_seen_by_a_linear_rule_where_the_images_are_not() -> None:
    data = noise_images(200)
    attack = PIL(epochs=10)
    shown = attack.perturbation(data)
    assert shown.abs().max() <= 8 / 255
    assert separability(shown, data.labels)["pixels"] >= 0.95
    images = data.images.float() / 255
    assert separability(images, data.labels)["pixels"] <= 0.7


def test_tue_moves_class_means_down_the_slope_of_its_discriminant() -> None:
    stream = torch.Generator().manual_seed(0)
    noise = torch.rand(12, 5, generator=stream, dtype=torch.float32) - 0.5
    labels = torch.arange(12) % 3
    means, spread = centroids(noise, labels)
    for label in range(3):
        own = noise[labels == label]
        torch.testing.assert_close(means[label], own.mean(0))
        apart = (own - own.mean(0)).norm(dim=1).mean()
        torch.testing.assert_close(spread[label], apart)
    means = means.requires_grad_()
    loss = torch.zeros(())
    for a in range(3):
        for b in range(3):
            if a != b:
                loss = loss + (spread[a] + spread[b]) / (means[a] - means[b]).norm()
    (slope,) = torch.autograd.grad(loss, means)
    found = centroid_slope(noise, labels)
    torch.testing.assert_close(found, slope / 2, atol=1e-5, rtol=1e-4)


def test_tue_ends_as_one_pattern_a_class_at_the_bound() -> None:
    shown = TUE().perturbation(DIGITS)
    assert shown.abs().max() <= 8 / 255
    assert separability(shown, DIGITS.labels)["pixels"] >= 0.99
    change = (TUE().poison(DIGITS).data.images.int() - DIGITS.images.int()).abs()
    assert change.max() == 8
    first = TUE(steps=1).perturbation(DIGITS)
    places = DIGITS.labels
    assert discriminant(shown, places) < 0.1 * discriminant(first, places)


def discriminant(noise: Tensor, labels: Tensor) -> float:
    means, spread = centroids(noise.flatten(1), labels)
    apart = torch.cdist(means, means) + torch.eye(len(means))
    pairs = (spread[:, None] + spread[None]) / apart
    return (pairs.sum() - pairs.diagonal().sum()).item()


def test_tap_makes_a_network_see_the_next_class() -> None:
    data = noise_images(32, size=16)
    attack = TAP(
        arch="convnet", width=4, epochs=30, steps=30, num_restarts=2, augment=False
    )
    seen: list[float] = []
    for steps in (1, 30):
        own = TAP(arch="convnet", width=4, epochs=30, steps=steps, augment=False)
        shown = own.perturbation(data)
        assert shown.abs().max() <= 8 / 255 + 1e-6
        seen.append(towards_next(data, shown))
    assert seen[1] < 0.5 * seen[0]
    assert towards_next(data, attack.perturbation(data)) <= seen[1]
    done = attack.poison(data).data
    assert (done.images.int() - data.images.int()).abs().max() == 8
    assert done.labels.equal(data.labels)


def towards_next(data: ImageData, noise: Tensor) -> float:
    network = Architecture(name="convnet", num_classes=2, width=4).build(0)
    settings = Training(epochs=30, batch_size=128)
    net = train_classifier(network, data=data, settings=settings)
    with torch.no_grad():
        output = net(data.images.float() / 255 + noise)
    aim = (data.labels + 1) % 2
    return torch.nn.functional.cross_entropy(output, aim).item()


def test_rem_helps_a_network_in_spite_of_an_adversary() -> None:
    noise, seen = noise_images(64), []
    data = replace(
        noise, images=noise.images // 16 + 120
    )  # faint, so that noise counts

    def report(progress: Progress) -> None:
        if progress.stage == "craft":
            seen.append(progress.metrics["error"])

    attack = REM(
        arch="convnet",
        width=4,
        train_steps=25,
        steps=5,
        num_views=1,
        adversary_steps=1,
        batch_size=32,
    )
    done = attack.poison(data, runtime=Runtime(progress=report)).data
    assert (done.images.int() - data.images.int()).abs().max() == 8
    assert len(seen) == 2
    assert max(seen) <= 0.1  # of two classes; half of the images before


def test_settings_of_the_other_attacks_are_checked() -> None:
    for make in (
        lambda: EM(steps=0),
        lambda: TUE(steps=0),
        lambda: TAP(num_restarts=0),
        lambda: REM(adversary_steps=-1),
        lambda: REM(adversary_eps=0),
        lambda: PIL(noise_weight=2),
        lambda: CUDAFilter(filter_size=2),
        lambda: ClassNoise(eps=2),
    ):
        with pytest.raises(InputError, match=r"^expected"):
            make()
