"""Clouds span what they should, and the view that is learnt is the hardest one."""

import pytest
import torch
from torch import nn

from bezoar.data import noise_images
from bezoar.errors import InputError
from bezoar.train import Training, UEraser, train_classifier
from bezoar.train.erasing import clouds


def test_clouds_span_all_and_are_rougher_when_told_to_be() -> None:
    stream = torch.Generator().manual_seed(0)
    found = clouds(torch.tensor([0.1, 0.9]), (32, 32), stream)
    assert found.amin((1, 2, 3)).tolist() == [0, 0]
    assert found.amax((1, 2, 3)).tolist() == [1, 1]
    steps = (found[..., 1:] - found[..., :-1]).abs().mean((1, 2, 3))
    assert steps[1] > 2 * steps[0]


class Brightness(nn.Module):
    """Is the surer of class 0 the brighter an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = 9 * x.mean((1, 2, 3))
        return torch.stack([level, -level], 1)


def test_the_view_with_the_highest_loss_is_learnt() -> None:
    images = noise_images(4).images.float() / 255
    labels = torch.tensor([0, 0, 1, 1])
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    views = torch.stack([UEraser(num_views=3).view(images, one) for _ in range(3)])
    found = UEraser(num_views=3)(Brightness(), images, labels, two)
    level = views.mean((2, 3, 4))
    expected = torch.where(labels == 0, level.amin(0), level.amax(0))
    torch.testing.assert_close(found.mean((1, 2, 3)), expected)


def test_without_chance_nothing_changes() -> None:
    images = noise_images(4).images.float() / 255
    still = UEraser(probability=0.0, num_views=1)
    assert still.view(images, torch.Generator()).equal(images)
    shuffled = UEraser(probability=1.0).view(images, torch.Generator())
    assert shuffled.min() >= 0
    assert shuffled.max() <= 1
    assert not shuffled.allclose(images)
    with pytest.raises(InputError, match="expected num_views of at least 1"):
        UEraser(num_views=0)


def test_a_training_takes_it() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    settings = Training(epochs=1)
    one, two = (
        train_classifier(net, data=noise_images(8), settings=settings, harden=UEraser())
        for _ in range(2)
    )
    assert next(one.parameters()).equal(next(two.parameters()))
