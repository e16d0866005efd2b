"""Near duplicates: found again after a change, and hardly ever by mistake."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bezoar.data import digit_images, noise_images, to_uint8
from bezoar.errors import InputError
from bezoar.metrics.near_duplicates import Looks, groups, looks, near_pairs
from bezoar.runtime import generator


def pictures(num_images: int, *, seed: int = 0) -> Tensor:
    """Return images whose spectrum falls as that of photographs, each independent."""
    stream = generator(seed, "pictures")
    freq = torch.fft.fftfreq(32)
    radius = (freq[:, None].square() + freq.square()).sqrt().clamp(min=1 / 32)
    white = torch.randn(num_images, 3, 32, 32, generator=stream)
    pink = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    pink = pink / pink.std((1, 2, 3), keepdim=True)
    return to_uint8(0.5 + 0.2 * pink)


def jpeg(image: Tensor) -> Tensor:
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75)
    return torch.from_numpy(np.asarray(Image.open(file)).transpose(2, 0, 1).copy())


def smaller(image: Tensor) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    small = picture.resize((24, 24), 3).resize((32, 32), 3)
    return torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())


def brighter(image: Tensor) -> Tensor:
    return (image.int() + 12).clamp(max=255).byte()


@pytest.mark.parametrize("change", [jpeg, smaller, brighter])
def test_a_changed_copy_is_found(change: object) -> None:
    assert callable(change)
    images = pictures(200)
    copies = torch.stack([change(image) for image in images])
    pairs = near_pairs(looks(torch.cat([images, copies])))
    found = {(a, b) for a, b in pairs.tolist() if b - a == 200}
    assert len(found) >= 0.95 * 200
    assert len(found) == len(pairs)


def test_independent_images_are_hardly_ever_taken_for_one() -> None:
    # 8 million pairs that are unlike by construction. None found bounds the rate
    # below 4e-7 at 95 % (3 / 8e6): less than one false pair in 2,000 images.
    assert len(near_pairs(looks(pictures(4000)))) == 0


def test_digits_and_noise_are_not_taken_for_one() -> None:
    # Strokes of one digit have the same lowest frequencies; the pictures decide. Of
    # 1.6 million pairs one is near enough for the eye too.
    assert len(near_pairs(looks(digit_images(size=32).images))) <= 3
    assert len(near_pairs(looks(noise_images(500, size=32).images))) == 0


def test_even_areas_of_other_brightness_are_not_the_same() -> None:
    grey = torch.full((2, 3, 32, 32), 10, dtype=torch.uint8)
    assert near_pairs(looks(grey)).tolist() == [[0, 1]]
    grey[1] = 60
    assert len(near_pairs(looks(grey))) == 0


def test_keys_that_differ_in_up_to_three_bits_are_all_compared() -> None:
    # One bit in each of three bands: the fourth band still brings them together.
    base = 0x0123456789ABCDEF
    keys = torch.tensor([base, base ^ 1 ^ (1 << 16) ^ (1 << 32), base ^ 0x1111])
    same = Looks(keys=keys, pictures=torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
    assert near_pairs(same).tolist() == [[0, 1]]


def test_what_hangs_together_is_a_group() -> None:
    pairs = torch.tensor([[4, 5], [0, 3], [3, 4]])
    assert groups(pairs, 7) == [[0, 3, 4, 5]]
    assert groups(torch.empty(0, 2, dtype=torch.int64), 7) == []


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="resize them first"):
        looks(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
