"""Noise in a part of the images is told from its transplants; none is no finding."""

from dataclasses import replace

import pytest
import torch

from bezoar.attacks import ClassNoise
from bezoar.data import ImageData, noise_images
from bezoar.detect import ShortcutTransplant
from bezoar.detect.decoys import by_decoys, decoy_p_values
from bezoar.detect.shortcut_transplant import transplanted
from bezoar.errors import InputError
from bezoar.metrics import auroc

QUICK = ShortcutTransplant(epochs=8, width=8)


def noise_of(num_classes: int, *, count: int) -> ImageData:
    data = noise_images(count)
    return replace(
        data,
        labels=torch.arange(count) % num_classes,
        class_names=tuple(map(str, range(num_classes))),
    )


def test_images_that_carry_noise_are_found_with_their_share() -> None:
    data = noise_of(4, count=600)
    done = ClassNoise(eps=0.5, poison_rate=0.4).poison(data, seed=1)
    # What D-VAE would take out, were it perfect; it takes from clean images as well.
    added = ClassNoise(eps=0.5).perturbation(data, seed=1)
    found = QUICK.detect(done.data, perturbation=added)
    assert found.verdict.status == "found"
    assert auroc(found.scores, done.is_poison) > 0.99
    right = (found.flagged & done.is_poison).sum() / found.flagged.sum()
    assert right > 0.8
    assert found.verdict.expected_false_alarms == pytest.approx(
        (found.flagged & ~done.is_poison).sum().item(), abs=20
    )
    assert found.verdict.poison_rate == pytest.approx(0.4, abs=0.08)
    assert len(found.verdict.classes) == 4
    assert "gives its label" in found.reasons[int(found.flagged.nonzero()[0])]


def test_classes_that_carry_noise_stand_out() -> None:
    data = noise_of(4, count=600)
    added = ClassNoise(eps=0.5).perturbation(data)
    poisoned = ClassNoise(eps=0.5).poison(data).data.images
    chosen = torch.isin(data.labels, torch.tensor([0, 2]))
    mixed = torch.where(chosen[:, None, None, None], poisoned, data.images)
    found = QUICK.detect(replace(data, images=mixed), perturbation=added)
    status = {row.label: row.status for row in found.verdict.classes}
    assert (status[0], status[2]) == ("found", "found")
    assert "found" not in (status[1], status[3])


def test_a_clean_set_with_whatever_was_taken_out_of_it_is_no_finding() -> None:
    data = noise_of(4, count=600)
    added = ClassNoise(eps=0.5).perturbation(data)  # its decoder is told the class
    found = QUICK.detect(data, perturbation=added)
    assert found.verdict.status == "nothing found"
    assert not found.flagged.any()


def test_a_transplant_is_another_image_with_the_noise() -> None:
    data = noise_of(4, count=32)
    moved = transplanted(data, torch.zeros(32, 3, 8, 8), seed=0)
    every = {tuple(image.flatten().tolist()) for image in data.images}
    assert {tuple(image.flatten().tolist()) for image in moved} == every
    assert not moved.equal(data.images)
    lifted = transplanted(data, torch.full((32, 3, 8, 8), 0.1), seed=0)
    expected = (moved.float() + 25.5).clamp(max=255)
    assert (lifted.float() - expected).abs().max() <= 0.51


def test_decoys_are_counted_as_by_hand() -> None:
    stream = torch.Generator().manual_seed(0)
    output, labels = torch.randn(9, 3, generator=stream), torch.arange(9) % 3
    found = decoy_p_values(output, labels)
    for i, label in enumerate(labels.tolist()):
        others = [output[j, label] for j in range(9) if labels[j] != label]
        as_sure = sum(bool(value >= output[i, label]) for value in others)
        assert found[i].item() == pytest.approx((1 + as_sure) / 7)


def test_labels_told_by_chance_are_no_finding_however_sure() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % 10
    sure = 9 * torch.randn(1000, 10, generator=stream)
    one = by_decoys(sure.log_softmax(1), labels, false_discovery_rate=0.1)
    assert (one.status, int(one.flagged.sum())) == ("nothing found", 0)
    always = sure + 50 * (torch.arange(10) == 3)  # one class for all images
    two = by_decoys(always.log_softmax(1), labels, false_discovery_rate=0.1)
    assert two.status == "nothing found"
    poison = torch.arange(1000) < 300
    told = sure + 60 * torch.nn.functional.one_hot(labels) * poison[:, None]
    three = by_decoys(told.log_softmax(1), labels, false_discovery_rate=0.1)
    assert three.status == "found"
    assert (three.flagged & poison).sum() > 290
    wrong = int((three.flagged & ~poison).sum())
    assert wrong <= 60  # a tenth is aimed at
    every = sure + 60 * torch.nn.functional.one_hot(labels)
    four = by_decoys(every.log_softmax(1), labels, false_discovery_rate=0.1)
    assert four.flagged.float().mean() > 0.99


def test_what_makes_no_sense_is_refused() -> None:
    data = noise_of(2, count=8)
    with pytest.raises(InputError, match="one perturbation per image"):
        QUICK.detect(data, perturbation=torch.zeros(7, 3, 8, 8))
    bare = replace(data, labels=torch.full((8,), -1), class_names=())
    with pytest.raises(InputError, match="expected labelled images"):
        QUICK.detect(bare, perturbation=torch.zeros(8, 3, 8, 8))
    with pytest.raises(InputError, match="epochs and width"):
        ShortcutTransplant(epochs=0)
