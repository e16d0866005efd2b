"""The adversary against a linear classifier, whose worst image is known."""

import pytest
import torch
from torch import nn

from bezoar.data import noise_images
from bezoar.errors import InputError
from bezoar.train import (
    Adversary,
    Training,
    ascended,
    crop_and_flip,
    shift_and_mirror,
    train_classifier,
)


def linear() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, device="meta"))
    net = net.to_empty(device="cpu")
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=stream)
    return net


def test_the_worst_image_of_a_linear_classifier_is_known() -> None:
    net, data = linear(), noise_images(6)
    images = 0.25 + data.images.float() / 510  # room on both sides
    found = ascended(net, images, data.labels, eps=0.1, step=0.05, steps=3)
    weight = next(
        net[1].parameters()
    ).detach()  # of two classes: the loss grows along w_other - w
    slope = (weight[1 - data.labels] - weight[data.labels]).view_as(images)
    torch.testing.assert_close(found, images + 0.1 * slope.sign())
    assert all(p.requires_grad for p in net.parameters())
    assert net.training


def test_a_start_is_kept_within_the_bound() -> None:
    net, data = linear(), noise_images(6)
    images = data.images.float() / 255
    start = torch.full_like(images, 0.5)
    found = ascended(net, images, data.labels, eps=0.1, step=0.0, steps=1, start=start)
    torch.testing.assert_close(found, (images + 0.1).clamp(0, 1))
    with pytest.raises(InputError, match="expected eps above 0"):
        Adversary(steps=0)


def test_training_is_shown_what_the_adversary_made() -> None:
    data, seen = noise_images(8), []

    def harden(*given: object) -> torch.Tensor:
        _, images, labels, stream = given
        assert isinstance(images, torch.Tensor)
        assert isinstance(stream, torch.Generator)
        seen.append((images, labels))
        return torch.zeros_like(images)

    settings = Training(epochs=2, batch_size=4, weight_decay=0.0)
    done = train_classifier(linear(), data=data, settings=settings, harden=harden)
    assert len(seen) == 4
    after, before = done[1].weight, linear()[1].weight  # type: ignore[index]
    assert after.equal(before)  # of black images no weight has a slope
    hard, soft = (
        train_classifier(linear(), data=data, settings=settings, harden=h)
        for h in (Adversary(steps=2), None)
    )
    assert not hard[1].weight.equal(soft[1].weight)  # type: ignore[index]


def test_shifts_of_shown_images_are_those_of_stored_ones() -> None:
    data = noise_images(5)
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    stored = crop_and_flip(data.images, one, pad=2)
    shown = shift_and_mirror(data.images.float(), two, pad=2)
    assert shown.equal(stored.float())
    images = data.images.float().requires_grad_()
    moved = shift_and_mirror(images, torch.Generator().manual_seed(3), pad=2)
    (slope,) = torch.autograd.grad(moved.sum(), images)
    assert slope.sum() == images.numel()
