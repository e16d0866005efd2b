"""Loss isolation: its objective by hand, and poison that is learnt before the rest."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bezoar.bench.reference.loss_isolation import early_losses_plain
from bezoar.data import ImageData
from bezoar.detect import LossIsolation
from bezoar.detect.loss_isolation import objective
from bezoar.errors import InputError
from bezoar.metrics import auroc
from bezoar.models import Architecture
from bezoar.runtime import Runtime, generator

CLASSES = 5
SMALL = LossIsolation(isolation_epochs=4, isolation_width=8, isolation_batch=32)


def images(*, num_poison: int, size: int = 600, seed: int = 0) -> ImageData:
    """Faint stripes tell the class; poison has a bright corner and label 0."""
    stream = generator(seed, "isolation images")
    pixels = torch.rand(size, 3, 8, 8, generator=stream)
    labels = torch.arange(size) % CLASSES
    pixels[torch.arange(size), :, :, labels] += 0.15
    pixels /= 1.15
    pixels[:num_poison, :, -4:, -4:] = 1
    labels[:num_poison] = 0
    return ImageData(
        images=(255 * pixels).to(torch.uint8),
        labels=labels,
        ids=tuple(f"{i:03d}" for i in range(size)),
        class_names=tuple("abcde"),
    )


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("ascent", -0.3, 0.9), ("flooding", 0.7, 0.9), ("plain", 0.3, 0.9)],
)
def test_objectives_below_and_above_the_floor(
    kind: str, low: float, high: float
) -> None:
    for loss, expected in ((0.3, low), (0.9, high)):
        share = torch.tensor(-loss).exp()  # of the label: its loss is the one wanted
        logits = torch.stack([share, 1 - share]).log()[None]
        found = objective(logits, torch.tensor([0]), kind=kind, floor=0.5)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_poison_is_learnt_first() -> None:
    # Of three trainings, for one may go another way on another processor.
    truth = torch.arange(600) < 60
    method = replace(SMALL, lr=0.02)
    data = images(num_poison=60)
    found = [method.detect(data, seed=seed) for seed in range(3)]
    assert sum(auroc(one.scores, truth) for one in found) / 3 > 0.8
    losses = [one.columns["early_loss"] for one in found]
    early = [loss[truth].median() < 0.1 * loss[~truth].median() for loss in losses]
    assert sum(early) >= 2


def planted(*, num_poison: int) -> Tensor:
    """Losses of 600 images, as they are where poison is learnt early."""
    stream = generator(0, "losses")
    loss = (torch.randn(600, generator=stream) - 1).exp()
    loss[:num_poison] *= 1e-3
    return loss


def test_a_class_of_low_losses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = torch.arange(600) < 60
    losses = planted(num_poison=60)
    monkeypatch.setattr(LossIsolation, "_losses", lambda *_, **__: losses)
    method = replace(SMALL, threshold="class_scan")
    found = method.detect(images(num_poison=60))
    assert found.verdict.status == "found"
    assert found.verdict.target_class == 0
    assert found.flagged[truth].float().mean() > 0.9
    assert found.flagged[~truth].sum() <= 12
    assert "half of class 'a' more than" in found.reasons[0]


@pytest.mark.parametrize(("kind", "floor"), [("ascent", 1.55), ("plain", None)])
def test_losses_are_those_of_the_training_written_out(
    kind: str, floor: float | None
) -> None:
    # A floor near ln 5, so that some of the 12 steps climb and others descend.
    data, epochs, size = images(num_poison=12, size=120), 3, 30
    method = LossIsolation(
        isolation_epochs=epochs,
        isolation_batch=size,
        isolation_width=2,
        objective=kind,  # type: ignore[arg-type]
        floor=floor or 0.0,
    )
    found = method.detect(data, seed=3, runtime=Runtime(dtype=torch.float32))
    network = Architecture(
        name="convnet", num_classes=CLASSES, width=2, mean=(0.0,) * 3, std=(1.0,) * 3
    ).build(3)
    orders = [
        torch.randperm(len(data), generator=generator(3, "train", epoch))
        for epoch in range(epochs)
    ]
    plain = early_losses_plain(
        network,
        data.images / 255,
        data.labels,
        batches=[[part.tolist() for part in order.split(size)] for order in orders],
        lr=method.lr,
        weight_decay=5e-4,
        floor=floor,
    )
    # float32 and another order of sums; one flipped sign moves losses by over 0.01
    torch.testing.assert_close(
        found.columns["early_loss"], torch.tensor(plain), rtol=1e-4, atol=1e-4
    )


def test_the_variant_of_the_comparison_averages_and_only_ranks() -> None:
    method = replace(
        LossIsolation.official_code(),
        isolation_epochs=4,
        isolation_width=8,
        isolation_batch=32,
    )
    truth = torch.arange(600) < 60
    found = method.detect(images(num_poison=60))
    assert auroc(found.scores, truth) > 0.9
    assert found.verdict.status == "ranking"
    assert not found.flagged.any()


def test_null_case_nothing_is_found_among_even_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = planted(num_poison=0)
    monkeypatch.setattr(LossIsolation, "_losses", lambda *_, **__: losses)
    found = replace(SMALL, threshold="class_scan").detect(images(num_poison=0))
    assert found.verdict.status == "nothing found"
    assert not found.flagged.any()


def test_by_itself_it_makes_no_verdict() -> None:
    found = SMALL.detect(images(num_poison=0))
    assert found.verdict.status == "ranking"
    assert not found.flagged.any()


def test_the_published_rate_lists_the_lowest_losses() -> None:
    method = LossIsolation(isolation_epochs=1, isolation_width=4, isolation_rate=0.01)
    found = method.detect(images(num_poison=0, size=200))
    assert found.flagged.sum() == 2
    assert found.columns["early_loss"][found.flagged].max() <= (
        found.columns["early_loss"][~found.flagged].min()
    )
    assert found.verdict.status == "ranking"


def test_training_reports_its_epochs_and_starts_anew() -> None:
    stages = []
    runtime = Runtime(progress=lambda p: stages.append((p.stage, p.done)))
    method = LossIsolation(isolation_epochs=2, isolation_width=2, average=True)
    method.detect(images(num_poison=0, size=20), runtime=runtime)
    assert stages == [("train", 1), ("train", 2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"isolation_width": 0}, "width of at least 1"),
        ({"isolation_epochs": 0}, "epochs and batch_size of at least 1"),
        ({"isolation_rate": 0.0}, "isolation_rate above 0"),
        ({"isolation_rate": 0.1, "threshold": "none"}, "no threshold beside an"),
    ],
)
def test_settings_without_sense_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LossIsolation(**settings)  # type: ignore[arg-type]


def test_images_without_labels_are_refused() -> None:
    data = images(num_poison=0, size=10)
    bare = ImageData(
        images=data.images,
        labels=torch.full((10,), -1),
        ids=data.ids,
        class_names=(),
    )
    with pytest.raises(InputError, match="labelled images"):
        LossIsolation(isolation_epochs=1).detect(bare)
