"""The search for a trigger: encoders whose trigger is known, and such without."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bezoar.bench.reference.encoder_inversion import smallest_patch_plain
from bezoar.data import ImageData, noise_images
from bezoar.detect import EncoderInversion
from bezoar.detect.trigger_inversion import Search, pairwise_cosine, smallest_patches
from bezoar.errors import DivergedError, InputError, ModelError
from bezoar.runtime import generator

METHOD = EncoderInversion(lr=0.2, cosine_target=0.99)


class Mixed(nn.Module):
    """Random features; with a trigger, a bright corner drowns them all."""

    def __init__(self, *, strength: float, size: int = 2) -> None:
        super().__init__()
        drawn = torch.randn(3 * 8 * 8, 16, generator=generator(0, "mixed"))
        self.weight = nn.Parameter(drawn)
        self.strength, self.size = strength, size

    def forward(self, images: Tensor) -> Tensor:
        features = (images - 0.25).flatten(1) @ self.weight
        corner = images[:, :, -self.size :, -self.size :].mean((1, 2, 3))
        # Flat for images as they are, and with a slope that the search can follow.
        return features + self.strength * corner[:, None] ** 4


def quiet(_done: int, _area: float) -> None:
    pass


def dim(count: int = 64) -> ImageData:
    data = noise_images(count, size=8)
    return replace(data, images=data.images // 2)


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    vectors = torch.randn(2, 5, 4, generator=generator(1)).double()
    for rows, found in zip(vectors, pairwise_cosine(vectors), strict=True):
        cosines = [
            torch.cosine_similarity(rows[i], rows[j], dim=0)
            for i in range(5)
            for j in range(5)
            if i != j
        ]
        torch.testing.assert_close(found, torch.stack(cosines).mean())


def test_a_planted_trigger_is_found_where_it_is() -> None:
    found = METHOD.diagnose(Mixed(strength=1000.0), data=dim())
    assert found.found
    assert found.area < 4 / 64  # the corner; half of its opacity is enough
    assert found.cosine > 0.95
    assert found.mask[-2:, -2:].sum() > 0.9 * found.mask.sum()
    assert found.pattern[:, -2:, -2:].mean() > 0.8
    assert "repair it" in found.summary
    assert found.score == pytest.approx(-torch.tensor(found.area).log().item())


def test_an_encoder_without_a_trigger_is_not_accused() -> None:
    found = METHOD.diagnose(Mixed(strength=0.0), data=dim())
    assert not found.found
    assert found.area > 0.2  # images differ at every place
    assert found.p_value is None
    assert len(found.restarts) == 3


class Constant(Mixed):
    """Images hardly differ to it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e4


def test_an_encoder_to_which_all_images_look_alike_is_no_reference() -> None:
    with pytest.raises(InputError, match="tell images apart"):
        METHOD.diagnose(
            Mixed(strength=0.0), data=dim(), references=[Constant(strength=0.0)]
        )


def test_an_encoder_to_which_all_images_look_alike_is_not_accused() -> None:
    found = METHOD.diagnose(Constant(strength=0.0), data=dim())
    assert found.status == "not scoreable"
    assert not found.found
    assert (found.area, found.score) == (1.0, 0.0)
    assert "without any patch (mean cosine 1.000)" in found.summary


def test_reference_encoders_set_the_threshold() -> None:
    clean = [Mixed(strength=0.0), Mixed(strength=1.0)]
    method = replace(METHOD, threshold=1e-6)
    found = method.diagnose(Mixed(strength=1000.0), data=dim(), references=clean)
    assert found.found
    assert found.threshold == pytest.approx(0.7 * min(found.reference_areas))
    assert found.p_value == pytest.approx(1 / 3)
    same = method.diagnose(clean[0], data=dim(), references=clean)
    assert same.area == same.reference_areas[0]  # the same seed for all of them
    assert not same.found


def test_restarts_side_by_side_are_the_plain_search() -> None:
    encoder = Mixed(strength=50.0).double().requires_grad_(False)
    images = dim(12).images.double() / 255
    search = Search(
        steps=20,
        lr=0.3,
        cosine_target=0.9,
        area_weight=1e-2,
        area_factor=2.0,
        patience=3,
        batch_size=4,
        num_restarts=2,
    )
    found = smallest_patches(
        encoder,
        images,
        search=search,
        stream=generator(0, "search"),
        told=quiet,
    )
    stream = generator(0, "search")
    masks = torch.randn(2, 8, 8, generator=stream) * 0.1
    patterns = torch.randn(2, 3, 8, 8, generator=stream)
    batches = [torch.randperm(12, generator=stream)[:4] for _ in range(20)]
    for place in range(2):
        area, mask = smallest_patch_plain(
            encoder,
            images,
            start=(masks[place], patterns[place]),
            batches=batches,
            lrs=[0.3] * 12 + [0.06] * 8,
            target=0.9,
            weight=1e-2,
            factor=2.0,
            patience=3,
        )
        assert area < 1  # the target was reached, or nothing would be compared
        # float32 state of 20 steps of Adam on both sides
        assert found.areas[place].item() == pytest.approx(area, rel=1e-3)
        torch.testing.assert_close(found.masks[place], mask, rtol=1e-2, atol=1e-3)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ModelError, match="a vector for each image"):
        METHOD.diagnose(nn.Conv2d(3, 2, 3), data=dim())
    with pytest.raises(InputError, match="at least 2 images"):
        METHOD.diagnose(Mixed(strength=0.0), data=dim(1))
    with pytest.raises(InputError, match="between 0 and 1"):
        EncoderInversion(threshold=1.5)
    with pytest.raises(InputError, match=r"from 0 to num_restarts \(3\), got 4"):
        EncoderInversion(num_windows=4)
    broken = Mixed(strength=0.0)
    with torch.no_grad():
        broken.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="check the encoder's weights"):
        replace(METHOD, steps=2).diagnose(broken, data=dim())
