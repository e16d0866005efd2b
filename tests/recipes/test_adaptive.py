import pytest
import torch

from bezoar.data import digit_pairs, digit_prompts
from bezoar.models import TinyClip, WordTokenizer
from bezoar.purify import PureEBM
from bezoar.runtime import Runtime
from recipes.mini import adaptive


def test_the_gradient_goes_past_a_change_that_is_held_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked: list[float] = []

    def change(_: object, images: torch.Tensor) -> torch.Tensor:
        assert not images.requires_grad
        walked.append(images.mean().item())
        return torch.full_like(images, float(len(walked)))

    monkeypatch.setattr(adaptive.Through, "_walked", change)
    through = adaptive.Through(lambda x: 3 * x.flatten(1), Runtime(), every=2)
    images = torch.zeros(1, 3, 2, 2, requires_grad=True)
    with torch.no_grad():
        assert not through(images).any()  # the chosen image is not purified
    seen = [through(images) for _ in range(3)]
    assert [x.mean().item() for x in seen] == [3.0, 3.0, 6.0]
    (slope,) = torch.autograd.grad(seen[2].sum(), images)
    assert slope.eq(3).all()
    assert len(walked) == 2


def test_what_the_purifier_changes_is_in_units_of_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PureEBM, "fine_tune", lambda: PureEBM(steps=10))
    through = adaptive.Through(lambda x: x.flatten(1), Runtime(), every=1)
    images = torch.full((2, 3, 32, 32), 0.5, requires_grad=True)
    moved = through(images).detach() - images.detach().flatten(1)
    assert 0.005 < moved.abs().mean() < 0.5


def test_nearness_is_the_largest_cosine_to_a_text_of_the_class() -> None:
    data = digit_pairs("victim", num_pairs=6)
    model = TinyClip(WordTokenizer.from_captions(data.captions), resolution=24).eval()
    near = adaptive.nearness(model, data, digit_prompts()[7])
    with torch.no_grad():
        seen = model.encode_images(data.images.float() / 255)
        told = model.encode_texts(model.tokenize(list(digit_prompts()[7])))
    torch.testing.assert_close(near, (seen @ told.T).max(1).values)


def test_there_is_an_attacker_for_each_of_the_five() -> None:
    assert list(adaptive.PARTS) == ["cd", "dvae", "ebm", "mimic", "ubt"]
