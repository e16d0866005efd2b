"""Views of a batch against views of one image at a time."""

import pytest
import torch

from bezoar.bench.reference.views import crop_one, jitter_one, turn_one
from bezoar.data import noise_images
from bezoar.errors import InputError
from bezoar.train.colour import jitter, to_grey, turned
from bezoar.train.views import Views, crop, crop_boxes

IMAGES = noise_images(12).images


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_are_those_of_one_image_at_a_time() -> None:
    images = torch.rand(40, 3, 12, 12, generator=stream())
    box = crop_boxes(40, (12, 12), area=(0.08, 1), ratio=(0.75, 1.33), stream=stream(1))
    mirrored = torch.arange(40) % 2 == 0
    found = crop(images, box, mirrored)
    for i in range(40):
        top, left, height, width = box[i].tolist()
        plain = crop_one(images[i], top, left, height, width, mirrored=i % 2 == 0)
        torch.testing.assert_close(found[i], plain, atol=1e-5, rtol=0)  # rounding


def test_crops_cover_the_shares_and_shapes_asked_for() -> None:
    box = crop_boxes(
        4000, (32, 32), area=(0.08, 1), ratio=(0.75, 4 / 3), stream=stream()
    )
    top, left, height, width = box.unbind(1)
    assert (
        (top >= 0) & (top + height <= 32) & (left >= 0) & (left + width <= 32)
    ).all()
    share = (height * width).float() / 32**2
    # Even between 8 % and 100 % before those that do not fit are drawn again.
    assert 0.08 <= share.quantile(0.02) <= 0.12
    assert 0.45 <= share.mean() <= 0.55
    assert (width / height).quantile(0.01) >= 0.7
    assert set(crop_boxes(9, (8, 8), area=(1, 1), ratio=(1, 1), stream=stream())
               .unique().tolist()) == {0, 8}  # fmt: skip


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    box = crop_boxes(3, (4, 4), area=(1, 1), ratio=(3, 3), stream=stream())
    assert box.tolist() == [[0, 0, 4, 4]] * 3


def test_colours_change_as_in_one_image_at_a_time() -> None:
    images = torch.rand(9, 3, 5, 5, generator=stream())
    images[0] = 0.5  # grey: no hue to turn
    strengths = (0.4, 0.4, 0.4, 0.1)
    found = jitter(images, stream(3), strengths=strengths, rate=0.8)
    again = stream(3)
    changes = (torch.rand(9, 4, generator=again) * 2 - 1) * torch.tensor(strengths)
    orders = torch.rand(9, 4, generator=again).argsort(1)
    is_changed = torch.rand(9, generator=again) < 0.8
    assert 0 < is_changed.sum() < 9
    for i in range(9):
        plain = images[i]
        if is_changed[i]:
            plain = jitter_one(plain, orders[i].tolist(), changes[i].tolist())
        torch.testing.assert_close(found[i], plain, atol=1e-5, rtol=0)


def test_the_hue_turns_as_colorsys_has_it() -> None:
    images = torch.rand(4, 3, 4, 4, generator=stream())
    images[0, :, 0, 0] = 0
    turns = torch.tensor([0.1, -0.1, 0.5, 0.0])
    for i, image in enumerate(turned(images, turns)):
        torch.testing.assert_close(
            image, turn_one(images[i], turns[i].item()), atol=1e-5, rtol=0
        )


def test_nothing_drawn_is_nothing_changed() -> None:
    still = Views(
        crop_area=(1, 1), crop_ratio=(1, 1), flip_rate=0, jitter_rate=0, grey_rate=0
    )
    torch.testing.assert_close(still(IMAGES, stream()), IMAGES.float() / 255)


def test_a_seed_is_one_set_of_views() -> None:
    assert Views()(IMAGES, stream(1)).equal(Views()(IMAGES, stream(1)))
    assert not Views()(IMAGES, stream(1)).equal(Views()(IMAGES, stream(2)))
    views = Views()(IMAGES, stream())
    assert views.min() >= 0
    assert views.max() <= 1


def test_the_shares_of_grey_and_mirrored_views_are_as_asked() -> None:
    images = noise_images(600).images
    shown = Views(grey_rate=0.2, jitter_rate=0)(images, stream())
    grey = torch.isclose(shown, to_grey(shown), atol=1e-6).flatten(1).all(1)
    assert 0.15 <= grey.float().mean() <= 0.25  # 0.2 within three standard errors
    turned_over = Views.whole()
    kept = Views(crop_area=(1, 1), crop_ratio=(1, 1), jitter_rate=0, grey_rate=0)
    same = (kept(images, stream()) - images / 255).abs().flatten(1).amax(1) < 1e-5
    assert 0.43 <= same.float().mean() <= 0.57
    assert turned_over.crop_area == (1.0, 1.0)


def test_grey_images_are_told_what_to_do() -> None:
    with pytest.raises(InputError, match="3 channels"):
        Views()(IMAGES[:, :1], stream())
    with pytest.raises(InputError, match="crop_area"):
        Views(crop_area=(0.0, 1.0))
    with pytest.raises(InputError, match="hue"):
        Views(hue=0.6)
