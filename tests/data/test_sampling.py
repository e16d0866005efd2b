import hashlib
from dataclasses import replace

import pytest
import torch

from bezoar.data import ImageData, content_keys, join, noise_images
from bezoar.data.sampling import Sampler, sample_images
from bezoar.errors import EmptyError, InputError


def uneven() -> ImageData:
    """60 images with 30, 20, 7, 2 and 1 of five labels, in mixed order."""
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor([30, 20, 7, 2, 1]))[
        torch.randperm(60, generator=torch.Generator().manual_seed(1))
    ]
    return replace(noise_images(60), labels=labels, class_names=tuple("abcde"))


def reference(data: ImageData, num_images: int, seed: int) -> list[str]:
    """Water filling, written out: every label gets one, again and again."""
    piles: dict[int, list[tuple[str, str]]] = {}
    for key, label, name in zip(
        content_keys(data.images), data.labels.tolist(), data.ids, strict=True
    ):
        text = repr((seed, "sample", key)).encode()
        digest = hashlib.blake2b(text, digest_size=16).hexdigest()
        piles.setdefault(label, []).append((digest, name))
    for pile in piles.values():
        pile.sort(reverse=True)
    drawn: list[tuple[str, str]] = []
    while len(drawn) < num_images and any(piles.values()):
        heads = sorted(pile.pop() for pile in piles.values() if pile)
        drawn += heads[: num_images - len(drawn)]
    return [name for _, name in sorted(drawn)]


@pytest.mark.parametrize("num_images", [1, 4, 13, 31, 60, 99])
def test_sample_equals_water_filling_over_labels(num_images: int) -> None:
    data = uneven()
    drawn = sample_images(data, num_images, seed=3)
    assert list(drawn.ids) == reference(data, num_images, 3)


def test_labels_are_even_as_far_as_they_reach() -> None:
    counts = sample_images(uneven(), 20, seed=0).labels.bincount().tolist()
    assert sorted(counts[:3]) == [5, 6, 6]
    assert counts[3:] == [2, 1]


@pytest.mark.parametrize("block", [1, 7, 59])
def test_order_and_blocks_do_not_matter(block: int) -> None:
    data = uneven()
    whole = sample_images(data, 13, seed=0)
    sampler = Sampler(num_images=13, seed=0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    for first in range(0, 60, block):
        sampler.add(data.take(order[first : first + block]))
        assert len(sampler.result()) <= 13
    drawn = sampler.result()
    assert drawn.ids == whole.ids
    assert drawn.images.equal(whole.images)
    assert drawn.labels.equal(whole.labels)


def test_the_sampler_keeps_no_block_alive() -> None:
    sampler = Sampler(num_images=2, seed=0)
    sampler.add(noise_images(50))
    kept = [image.untyped_storage().nbytes() for _, image in sampler._drawn.values()]
    assert kept == [3 * 8 * 8] * 2


def test_another_seed_draws_another_sample() -> None:
    first, second = (sample_images(uneven(), 10, seed=s).ids for s in (0, 1))
    assert set(first) != set(second)


def test_copies_count_once_and_bear_the_first_name() -> None:
    data = noise_images(4)
    copies = replace(data, ids=tuple(f"a/{name}" for name in data.ids))
    drawn = sample_images(join([data, copies]), 8, seed=0)
    assert sorted(drawn.ids) == sorted(copies.ids)


def test_without_labels_the_smallest_hashes_are_drawn() -> None:
    data = noise_images(30)
    bare = replace(data, labels=torch.full((30,), -1), class_names=())
    assert list(sample_images(bare, 9, seed=5).ids) == reference(bare, 9, 5)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(EmptyError, match="got none that can be read"):
        Sampler(num_images=3, seed=0).result()
    with pytest.raises(InputError, match="at least 1 image, got 0"):
        sample_images(uneven(), 0, seed=0)
