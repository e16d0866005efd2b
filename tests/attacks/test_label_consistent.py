"""The adversarial noise of the label-consistent attack."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.attacks import LabelConsistent
from bezoar.attacks.label_consistent import ascend, check_logits
from bezoar.data import ImageData, noise_images
from bezoar.errors import DivergedError, ModelError
from bezoar.models import Normalized
from bezoar.results import Poisoned
from bezoar.runtime import Runtime

ATTACK = LabelConsistent(poison_rate=0.08, target_class=1)
DATA = noise_images(100, size=12)


class Net(nn.Sequential):
    """A small network with everything that an attack might leave changed."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 6, 3),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Dropout(),
                nn.Flatten(),
                nn.Linear(600, 2),
            )
            self.get_parameter("5.weight").data.mul_(20)


def losses(model: nn.Module, images: Tensor, label: int = 1) -> Tensor:
    with torch.no_grad():
        logits = model.eval()(images.float() / 255)
    return functional.cross_entropy(
        logits, torch.full((len(images),), label), reduction="none"
    )


@pytest.fixture(scope="module")
def found() -> Poisoned:
    return ATTACK.poison(DATA, model=Net())


def test_the_noise_raises_the_loss_of_every_image(found: Poisoned) -> None:
    model, rows = Net(), found.is_poison
    before = losses(model, ATTACK.apply(DATA.images[rows]))
    after = losses(model, found.data.images[rows])
    assert (after > before + 0.5).all()


def test_the_noise_stays_within_eps_and_off_the_patch(found: Poisoned) -> None:
    rows = found.is_poison
    noise = found.data.images[rows].int() - ATTACK.apply(DATA.images[rows]).int()
    assert noise.abs().max() == 16
    assert (noise[..., -3:, -3:] == 0).all()
    noise[..., -3:, -3:] = 1
    assert (noise != 0).float().mean() > 0.9


def test_a_linear_model_is_led_to_the_corner_of_the_box() -> None:
    """Of two linear logits the loss is highest where each pixel goes with the slope."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(3 * 64, 2)
    weight = torch.randn(2, 192, generator=generator)
    linear.weight.data.copy_(weight)
    model = nn.Sequential(nn.Flatten(), linear)
    images = torch.rand(4, 3, 8, 8, generator=generator)
    labels, free = torch.tensor([0, 1, 0, 1]), torch.ones(8, 8)
    free[-3:, -3:] = 0
    settings = LabelConsistent(eps=0.05, step_size=0.02, steps=8)
    start = 0.05 * (2 * torch.rand(images.shape, generator=generator) - 1)
    found = ascend(
        images, start=start, labels=labels, free=free, model=model, settings=settings
    )
    slope = torch.stack([weight[1 - y] - weight[y] for y in labels.tolist()])
    step = 0.05 * slope.sign().view_as(images) * free
    torch.testing.assert_close(found, (images + step).clamp(0, 1))


def test_the_start_depends_on_seed_and_content() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.flatten(1)[:, :2]  # no slope: the start is all that remains

    def noise(data: ImageData, seed: int) -> dict[str, Tensor]:
        blind = ATTACK.poison(data, model=Blind(), seed=seed)
        return dict(
            zip(
                blind.data.ids, blind.data.images.int() - data.images.int(), strict=True
            )
        )

    # Middle greys, so that nothing is clipped and equal noise shows as equal.
    data = replace(DATA, images=DATA.images // 4 + 96)
    renamed = replace(data, ids=tuple(reversed(DATA.ids)))
    first, other = noise(data, 0), noise(renamed, 0)
    for old, new in zip(DATA.ids, renamed.ids, strict=True):
        assert first[old].equal(other[new])
    one, two, *_ = (i for i in DATA.ids if first[i].any())
    assert not first[one][:, :9].equal(first[two][:, :9])  # above the patch
    again = noise(data, 1)
    both = [i for i in DATA.ids if first[i].any() and again[i].any()]
    assert both
    assert not any(first[i].equal(again[i]) for i in both)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_does_not_matter(found: Poisoned, batch_size: int) -> None:
    other = ATTACK.poison(DATA, model=Net(), runtime=Runtime(batch_size=batch_size))
    # Rounding may turn the sign of a slope next to zero; on this network it does not.
    assert other.data.images.equal(found.data.images)


def test_company_does_not_matter() -> None:
    runtime = Runtime(batch_size=8)
    few = LabelConsistent(poison_rate=0.03, target_class=1)
    part = few.poison(DATA, model=Net(), runtime=runtime)
    whole = ATTACK.poison(DATA, model=Net(), runtime=runtime)
    assert part.data.images[part.is_poison].equal(whole.data.images[part.is_poison])


def test_the_model_and_its_modes_stay_as_they_were() -> None:
    model = Net().train()
    model[1].eval()
    model.get_parameter("0.weight").requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    slopes = [p.requires_grad for p in model.parameters()]
    ATTACK.poison(DATA, model=model)
    torch.testing.assert_close(model.state_dict(), weights, atol=0, rtol=0)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == slopes
    assert all(p.grad is None for p in model.parameters())


def test_it_works_where_the_caller_switched_gradients_off(found: Poisoned) -> None:
    with torch.no_grad():
        again = ATTACK.poison(DATA, model=Net())
    assert again.data.images.equal(found.data.images)


def test_the_model_sees_images_in_the_unit_range() -> None:
    seen: list[tuple[float, float]] = []

    class Watch(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.min().item(), x.max().item()))
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]

    model = Normalized(Watch(), mean=[0.0] * 3, std=[1.0] * 3)
    ATTACK.poison(DATA, model=model)
    assert min(low for low, _ in seen) == 0
    assert max(high for _, high in seen) == 1


def test_nan_weights_are_reported() -> None:
    model = Net()
    model.get_parameter("5.weight").data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="20 steps, got NaN or infinity at the ima"):
        ATTACK.poison(DATA, model=model)


def test_a_model_for_other_classes_is_refused() -> None:
    images = torch.zeros(4, 3, 8, 8)
    with pytest.raises(ModelError, match=r"shape \(4, 5\), got \(4, 192\)"):
        check_logits(nn.Flatten(), images, num_classes=5)


def test_a_model_that_returns_a_tuple_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ModelError, match=r"got tuple; give a classifier"):
        check_logits(Pair(), torch.zeros(4, 3, 8, 8), num_classes=5)
