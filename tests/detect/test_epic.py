"""EPIC: what stands alone is dropped for good, and a clean set loses images too."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bezoar.data import ImageData, digit_images, noise_images
from bezoar.detect import Epic
from bezoar.detect.pruning import (
    Pruning,
    isolated,
    last_layer_gradients,
    train_pruned,
)
from bezoar.errors import InputError
from bezoar.metrics import auroc
from bezoar.runtime import Runtime, generator
from bezoar.train import Training, train_classifier

SMALL = Epic(epic_epochs=4, start_epoch=1, every=2, epic_width=4, epic_batch=32)


def linear() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, device="meta"))
    net = net.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator(0, "linear"))
    return net


def test_gradients_are_those_of_the_cross_entropy() -> None:
    outputs = torch.randn(5, 3, generator=generator(0, "outputs")).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1])
    loss = nn.functional.cross_entropy(outputs, labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(last_layer_gradients(outputs.detach(), labels), slope)


def test_an_image_without_its_like_is_alone() -> None:
    crowd = 0.01 * torch.randn(30, 3, generator=generator(0, "crowd"))
    strange = torch.tensor([[-0.9, 0.9, 0.0], [-0.9, 0.0, 0.9]])
    alone, distance = isolated(torch.cat([crowd, strange]), subset_rate=0.1)
    assert alone.nonzero().flatten().tolist() == [30, 31]
    assert distance[30:].min() > 10 * distance[:30].max()


def test_dropped_images_stay_dropped_and_classes_do_not_mix() -> None:
    labels = torch.arange(40) % 2
    outputs = torch.randn(40, 2, generator=generator(0, "logits"))
    pruning = Pruning(labels, subset_rate=0.3)
    pruning.drop(outputs, epoch=1)
    first = pruning.kept.clone()
    alone, _ = isolated(
        last_layer_gradients(outputs, labels)[labels == 1], subset_rate=0.3
    )
    assert (~first)[labels == 1].equal(alone)
    pruning.drop(-outputs, epoch=5)
    assert (pruning.kept <= first).all()
    assert (pruning.epoch[~first] == 1).all()
    assert (pruning.epoch[first & ~pruning.kept] == 5).all()
    assert (pruning.epoch[pruning.kept] == -1).all()


def test_the_last_images_of_a_class_are_kept() -> None:
    labels = torch.tensor([0, 1, 1])
    pruning = Pruning(labels, subset_rate=0.9)
    for epoch in range(4):
        pruning.drop(torch.randn(3, 2, generator=generator(epoch, "x")), epoch=epoch)
    assert pruning.kept[0]
    assert pruning.kept[1:].any()


def test_training_does_not_see_what_was_dropped() -> None:
    data, settings = noise_images(12), Training(epochs=3, batch_size=4)
    pruning = Pruning(data.labels, subset_rate=0.5)
    pruning.kept[4:] = False
    found = train_pruned(
        linear(), data=data, pruning=pruning, start_epoch=9, settings=settings
    )
    left = data.take(torch.arange(4))
    expected = train_classifier(linear(), data=left, settings=settings)
    torch.testing.assert_close(found.state_dict(), expected.state_dict())


def test_images_are_dropped_at_the_epochs_that_were_asked_for() -> None:
    data = digit_images(size=8).take(torch.arange(300))
    found = SMALL.detect(data)
    left_out = found.columns["epochs_left_out"]
    assert set(left_out.unique().tolist()) == {0.0, 1.0, 3.0}  # before 1 and before 3
    assert found.flagged.equal(left_out > 0)
    assert found.scores[found.flagged].min() >= 1
    assert found.scores[~found.flagged].max() < 1
    assert found.scores.equal(left_out + found.columns["gradient_distance"] / 2)
    reason = found.reasons[int(left_out.argmax())]
    assert "dropped before epoch 2: of class" in reason


def test_wrong_labels_are_dropped_more_than_others() -> None:
    data = digit_images(size=16).take(torch.arange(600))
    labels = data.labels.clone()
    labels[:30] = (labels[:30] + 3) % 10
    is_wrong = torch.arange(600) < 30
    method = replace(
        SMALL, epic_epochs=7, start_epoch=4, every=1, epic_width=8, augment="none"
    )
    found = method.detect(replace(data, labels=labels))
    assert auroc(found.scores, is_wrong) > 0.8
    shares = [found.flagged[w].float().mean() for w in (is_wrong, ~is_wrong)]
    assert shares[0] > 2 * shares[1]


def test_null_case_a_clean_set_loses_images_and_is_told_so() -> None:
    found = SMALL.detect(digit_images(size=8).take(torch.arange(300)))
    assert found.verdict.status == "ranking"
    assert not found.found
    assert found.flagged.any()
    assert found.verdict.expected_false_alarms == found.verdict.num_flagged
    assert "drops images of clean sets as well" in found.verdict.health[0]


def test_progress_is_that_of_the_training_alone() -> None:
    seen = []
    runtime = Runtime(progress=lambda p: seen.append((p.stage, p.done)))
    SMALL.detect(noise_images(20), runtime=runtime)
    assert seen == [("train", epoch) for epoch in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset_rate": 1.0}, "subset_rate between 0 and 1"),
        ({"start_epoch": 40}, r"from 0 to below epic_epochs \(40\)"),
        ({"every": 0}, "every of at least 1"),
        ({"epic_width": 0}, "epic_width of at least 1"),
        ({"epic_batch": 0}, "epochs and batch_size of at least 1"),
    ],
)
def test_settings_without_sense_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Epic(**settings)  # type: ignore[arg-type]


def test_images_without_labels_are_refused() -> None:
    data = noise_images(10)
    bare = ImageData(
        images=data.images,
        labels=torch.full((10,), -1),
        ids=data.ids,
        class_names=(),
    )
    with pytest.raises(InputError, match="labelled images"):
        SMALL.detect(bare)
