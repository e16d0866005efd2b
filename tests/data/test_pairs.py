"""Pairs in memory, and captions that tell the truth."""

from dataclasses import replace

import pytest
import torch

from bezoar.data import (
    ImageData,
    PairData,
    describe_photos,
    digit_pairs,
    digit_prompts,
    join_pairs,
    mix_up_captions,
    noise_images,
    photo_prompts,
)
from bezoar.data.captions import DIGIT_NAMES, brightness
from bezoar.errors import InputError


def pairs(n: int = 4) -> PairData:
    data = noise_images(n)
    captions = tuple(f"picture {i % 3}" for i in range(n))
    return PairData(
        images=data.images,
        captions=captions,
        ids=data.ids,
        labels=data.labels,
        class_names=data.class_names,
    )


def test_a_subset_keeps_rows_together() -> None:
    data = pairs(5)
    taken = data.take(torch.tensor([4, 1]))
    assert taken.captions == ("picture 1", "picture 1")
    assert taken.ids == ("noise/4", "noise/1")
    assert taken.images.equal(data.images[[4, 1]])
    assert data.subset(data.labels == 1).ids == ("noise/1", "noise/3")
    assert join_pairs([taken, data.take(torch.tensor([0]))]).captions[-1] == "picture 0"


def test_labels_may_be_left_out() -> None:
    data = replace(pairs(), labels=torch.empty(0, dtype=torch.int64), class_names=())
    assert data.labels.tolist() == [-1] * 4
    assert not data.image_data.is_labelled


def test_batches_are_in_unit_range_and_complete() -> None:
    parts = list(pairs(5).batches(2))
    assert [len(ids) for ids, _, _ in parts] == [2, 2, 1]
    assert all(0 <= float(x.min()) <= float(x.max()) <= 1 for _, x, _ in parts)
    assert [c for _, _, captions in parts for c in captions] == list(pairs(5).captions)


def test_a_missing_caption_is_told() -> None:
    data = noise_images(3)
    with pytest.raises(InputError, match="3 images and 2 captions"):
        PairData(images=data.images, captions=("a", "b"), ids=data.ids)


def test_captions_of_digits_are_true() -> None:
    data = digit_pairs("victim", num_pairs=60)
    for image, caption, label in zip(
        data.images.float(), data.captions, data.labels.tolist(), strict=True
    ):
        assert f" {DIGIT_NAMES[label]} " in f" {caption.replace(',', '')} "
        paper = "white" if image.median() > 127 else "black"
        assert any(
            f"{lead}{paper}" in f"{caption} background"
            for lead in ("on ", "on a ", "over ")
        ), (caption, paper)
    assert set(data.captions) <= {text for own in digit_prompts() for text in own}


def test_parts_of_the_digits_share_no_original_and_follow_their_seed() -> None:
    one, same = (digit_pairs("test", num_pairs=9, seed=1) for _ in range(2))
    assert one.images.equal(same.images)
    assert one.captions == same.captions
    assert not one.images.equal(digit_pairs("test", num_pairs=9, seed=2).images)
    with pytest.raises(InputError, match="reference, victim, test"):
        digit_pairs("train", num_pairs=2)


def test_photos_are_called_bright_above_the_median() -> None:
    data: ImageData = noise_images(20)
    told = describe_photos(data)
    is_bright = torch.tensor(["bright" in c for c in told.captions])
    assert int(is_bright.sum()) >= 10
    levels = brightness(data)
    assert levels[is_bright].min() > levels[~is_bright].max()
    prompts = photo_prompts(data.class_names)
    assert all(
        c in prompts[label]
        for c, label in zip(told.captions, told.labels.tolist(), strict=True)
    )
    fixed = describe_photos(data, middle=0.0)
    assert all("bright" in c for c in fixed.captions)


def test_a_caption_mixed_up_is_that_of_another_class() -> None:
    data = digit_pairs("victim", num_pairs=100)
    noisy = mix_up_captions(data, rate=0.2, seed=3)
    changed = [a != b for a, b in zip(data.captions, noisy.captions, strict=True)]
    assert sum(changed) == 20
    prompts = digit_prompts()
    for caption, label, is_changed in zip(
        noisy.captions, data.labels.tolist(), changed, strict=True
    ):
        assert (caption in prompts[label]) is not is_changed
