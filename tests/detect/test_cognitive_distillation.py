"""The method on models whose decision is known, its verdicts and its refusals."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import ImageData, noise_images
from bezoar.detect import CognitiveDistillation
from bezoar.detect.mask_scoring import target_share
from bezoar.errors import DivergedError, InputError, ModelError, UnscoreableError
from bezoar.models import Normalized
from bezoar.runtime import Runtime, generator

FLOAT = Runtime(dtype=torch.float32)


class Gated(nn.Module):
    """A bright corner leads to class 0; else a linear classifier of all pixels."""

    def __init__(self) -> None:
        super().__init__()
        stream = generator(0, "gated")
        self.weight = nn.Parameter(0.3 * torch.randn(5, 3 * 16 * 16, generator=stream))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(40 * (x[:, :, -3:, -3:].flatten(1).mean(1) - 0.8))
        target = 10 * nn.functional.one_hot(torch.zeros(1, dtype=torch.int64), 5)
        linear = (x - 0.5).flatten(1) @ self.weight.T
        return gate[:, None] * target + (1 - gate)[:, None] * linear


def images(*, num_poison: int, size: int = 400, seed: int = 0) -> ImageData:
    """Dim noise with a faint pattern by class; poison has the corner and label 0."""
    stream = generator(seed, "gated images")
    pixels = 0.1 + 0.5 * torch.rand(size, 3, 16, 16, generator=stream)
    labels = torch.arange(size) % 5
    pixels += 0.02 * Gated().weight.detach().sign()[labels].view_as(pixels)
    pixels[:num_poison, :, -3:, -3:] = 1
    labels[:num_poison] = 0
    return ImageData(
        images=(255 * pixels).to(torch.uint8),
        labels=labels,
        ids=tuple(f"{i:04d}" for i in range(size)),
        class_names=("a", "b", "c", "d", "e"),
    )


def test_poison_is_found_with_its_class_and_its_reasons() -> None:
    data = images(num_poison=40)
    truth = torch.arange(400) < 40
    found = CognitiveDistillation(num_masks=10).detect(data, model=Gated())
    assert found.verdict.status == "found"
    assert found.verdict.target_class == 0
    assert found.flagged[truth].all()
    # five classes of 80: p-values are coarse, so allow twice the rate aimed at
    assert found.flagged[~truth].sum() <= 9
    assert found.scores[truth].min() > found.scores[~truth].quantile(0.95)
    assert found.verdict.poison_rate == pytest.approx(0.1, abs=0.04)
    assert "class 'a'" in found.verdict.summary
    reasons = [r for r, f in zip(found.reasons, found.flagged, strict=True) if f]
    assert all("of this image" in reason for reason in reasons)
    assert found.keep(data).ids == tuple(
        i for i, f in zip(data.ids, found.flagged.tolist(), strict=True) if not f
    )
    assert found.masks is not None
    assert found.masks.shape == (10, 16, 16)
    bright = found.masks[:, -3:, -3:].float().mean()
    assert bright > 4 * found.masks.float().mean()


def test_null_case_nothing_is_found_in_clean_images() -> None:
    data = images(num_poison=0)
    for seed in range(3):
        found = CognitiveDistillation().detect(data, model=Gated(), seed=seed)
        assert found.verdict.status == "nothing found"
        assert not found.flagged.any()
        assert found.keep(data) is data


def test_without_labels_the_predictions_stand_in() -> None:
    data = images(num_poison=40)
    bare = replace(data, labels=torch.full((400,), -1), class_names=())
    method = CognitiveDistillation(l1_weight=0.003, fill="colours")  # draws no sample
    found = method.detect(bare, model=Gated())
    labelled = method.detect(data, model=Gated())
    assert found.scores.equal(labelled.scores)
    assert found.verdict.status == "found"
    assert found.labels.eq(-1).all()


def test_few_classes_give_a_ranking_and_say_why() -> None:
    data = images(num_poison=4, size=40)
    method = CognitiveDistillation(l1_weight=0.003)
    found = method.detect(data, model=Gated())
    assert found.verdict.status == "ranking"
    assert "fewer than 5 classes" in found.verdict.summary
    with pytest.raises(InputError, match='take "review" or give a reference'):
        replace(method, threshold="class_scan").detect(data, model=Gated())


def test_a_reference_of_clean_images_finds_poison_without_classes() -> None:
    method = CognitiveDistillation(l1_weight=0.003)
    clean = method.detect(images(num_poison=0, seed=1), model=Gated())
    data = images(num_poison=30, size=100)
    found = method.detect(data, model=Gated(), reference=clean)
    assert found.verdict.rule == "reference"
    assert found.flagged[:30].all()
    assert found.flagged[30:].sum() <= 10
    again = method.detect(images(num_poison=0), model=Gated(), reference=clean)
    assert again.verdict.status == "nothing found"


def test_a_reference_of_other_settings_is_refused() -> None:
    clean = images(num_poison=0, size=20)
    method = CognitiveDistillation(l1_weight=0.003)
    reference = method.detect(clean, model=Gated())
    other = replace(method, steps=29)
    with pytest.raises(InputError, match="reference with steps 29, got one with 40"):
        other.detect(clean, model=Gated(), reference=reference)
    with pytest.raises(InputError, match='expected a reference for the threshold "ref'):
        replace(method, threshold="reference").detect(clean, model=Gated())


def test_normalised_and_plain_models_give_the_same_masks() -> None:
    class Unnormalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Gated()

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.inner(x * 0.25 + 0.5)
            return output

    data = images(num_poison=8, size=32)
    method = CognitiveDistillation(l1_weight=0.003, steps=10)
    wrapped = Normalized(Unnormalised(), mean=(0.5,) * 3, std=(0.25,) * 3)
    plain = method.detect(data, model=Gated(), runtime=FLOAT)
    normed = method.detect(data, model=wrapped, runtime=FLOAT)
    # ten steps: rounding of the normalisation, amplified by sign-like steps
    torch.testing.assert_close(normed.scores, plain.scores, atol=2e-3, rtol=0)


def test_bfloat16_changes_no_decision_here() -> None:
    data = images(num_poison=40)
    method = CognitiveDistillation(l1_weight=0.003)
    runtimes = FLOAT, Runtime(dtype=torch.bfloat16)
    one, two = (method.detect(data, model=Gated(), runtime=r) for r in runtimes)
    both = torch.stack([one.scores, two.scores])
    assert torch.corrcoef(both)[0, 1] > 0.99
    assert (one.flagged != two.flagged).sum() <= 4  # 1 % of the images


def test_features_of_a_named_layer_can_be_kept() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    data = replace(images(num_poison=0, size=4), class_names=("a", "b", "c", "d"))
    data = replace(data, labels=torch.zeros(4, dtype=torch.int64))
    method = replace(CognitiveDistillation.features(), steps=5)
    by_default = method.detect(data, model=model)
    by_name = replace(method, layer="0").detect(data, model=model)
    assert not by_default.scores.equal(by_name.scores)
    assert by_default.verdict.rule == "sigmas"
    with pytest.raises(ModelError):
        replace(method, layer="missing").detect(data, model=model)


def test_vanished_masks_get_no_verdict_but_advice() -> None:
    method = CognitiveDistillation(l1_weight=10.0)
    found = method.detect(images(num_poison=40), model=Gated())
    assert found.verdict.status == "not scoreable"
    assert not found.flagged.any()
    assert "lower l1_weight to 3.3" in found.verdict.health[0]


def test_a_model_without_an_opinion_cannot_be_calibrated() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.flatten(1)[:, :5]

    with pytest.raises(UnscoreableError, match="may be untrained"):
        CognitiveDistillation(steps=60).detect(
            images(num_poison=0, size=10), model=Blind()
        )


def test_the_median_mask_keeps_less_where_images_share_their_ground() -> None:
    ground = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    strokes = ground.clone()
    strokes[::2, :, 2:6, 2:6] = 255  # a quarter of the pixels differ
    photos = noise_images(6, size=8).images
    assert target_share(strokes) == pytest.approx(0.6 / 4)
    assert 0.4 < target_share(photos) <= 0.6
    assert target_share(ground) == 0.05  # images that are all alike


def test_a_share_outside_of_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="expected target_share above 0"):
        CognitiveDistillation(target_share=1.5)


def test_calibration_does_not_depend_on_the_order_of_the_images() -> None:
    data = images(num_poison=40)
    order = torch.randperm(400, generator=generator(0, "order"))
    method = CognitiveDistillation()
    one = method.detect(data, model=Gated())
    two = method.detect(data.take(order), model=Gated())
    assert two.scores.equal(one.scores[order])
    assert one.provenance.settings == two.provenance.settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps and mask_scale of at least 1"),
        ({"l1_weight": -1.0}, "l1_weight of at least 0, got -1.0"),
        ({"layer": "x"}, 'set match="features" or leave it out'),
    ],
)
def test_settings_without_sense_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CognitiveDistillation(**settings)  # type: ignore[arg-type]


def test_a_diverging_step_names_the_setting_to_change() -> None:
    class Kinked(nn.Module):
        """Finite everywhere, with a slope that is not."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(0 * x.flatten(1)[:, :5])

    method = CognitiveDistillation(l1_weight=0.01, steps=3)
    with pytest.raises(DivergedError, match="lower lr"):
        method.detect(images(num_poison=0, size=4), model=Kinked())
