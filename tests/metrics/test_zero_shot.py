"""Classes as texts: a model whose vectors are known, and whom the rates leave out."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.metrics import evaluate, zero_shot_classifier, zero_shot_head
from bezoar.models import DualEncoder, frozen
from bezoar.models.dual_encoder import unit


class Colours(DualEncoder):
    """Sees the mean colour of an image; a text is the colours that it names."""

    names = ("red", "green", "blue")

    def __init__(self) -> None:
        super().__init__()
        self.resolution, self.context_length = 4, 8
        self.scale = nn.Parameter(torch.tensor(1.0))

    @property
    def log_scale(self) -> nn.Parameter:
        return self.scale

    def image_parameters(self) -> list[nn.Parameter]:
        return []

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[int(n in c) for n in self.names] for c in captions])

    def encode_texts(self, ids: Tensor) -> Tensor:
        return unit(ids.float())

    def encode_images(self, images: Tensor) -> Tensor:
        return unit(images.mean((2, 3)))


class Paint:
    """A trigger that turns images blue."""

    target_class = 2

    def apply(self, images: Tensor) -> Tensor:
        return (
            images.clone()
            .index_fill_(1, torch.tensor([0, 1]), 0)
            .index_fill_(1, torch.tensor([2]), 255)
        )


PROMPTS = [["a red thing", "red"], ["green"], ["blue"]]


def colours(labels: list[int], shown: list[int]) -> ImageData:
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    images[torch.arange(len(labels)), shown] = 200
    return ImageData(
        images=images,
        labels=torch.tensor(labels),
        ids=tuple(map(str, range(len(labels)))),
        class_names=Colours.names,
    )


def test_a_head_is_the_mean_of_unit_prompts() -> None:
    head = zero_shot_head(Colours(), [["red", "red and green"], ["blue"]])
    mean = torch.tensor([1 + 0.5**0.5, 0.5**0.5, 0.0])
    torch.testing.assert_close(head[0], mean / mean.norm())
    torch.testing.assert_close(head[1], torch.tensor([0.0, 0.0, 1.0]))


def test_the_target_class_is_in_neither_count() -> None:
    # Six of eight right; two of the four that are not blue are painted blue anyway.
    data = colours([0, 0, 1, 1, 2, 2, 2, 2], [0, 2, 1, 1, 2, 2, 2, 0])
    classifier = zero_shot_classifier(Colours(), PROMPTS, class_names=Colours.names)
    result = evaluate(classifier, data, attack=Paint())
    assert result.clean_accuracy == 6 / 8
    assert (result.attack_success_rate, result.num_triggered) == (1.0, 4)
    assert result.target_class_accuracy == 3 / 4
    assert result.clean_target_rate == 1 / 4


def test_a_prefix_stands_before_every_prompt() -> None:
    plain, led = (
        zero_shot_classifier(Colours(), PROMPTS, prefix=p) for p in ("", "green ")
    )
    assert led.head[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0])
    assert plain.head[1].equal(led.head[1])


def test_logits_are_scaled_cosines_and_the_model_stays() -> None:
    model = Colours()
    classifier = zero_shot_classifier(model, PROMPTS)
    with frozen(classifier):
        logits = classifier(torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1) / 5)
    expected = torch.tensor([[0.6, 0.8, 0.0]]) * torch.tensor(1.0).exp()
    torch.testing.assert_close(logits, expected)
    assert model.training
    assert model.scale.requires_grad


@pytest.mark.parametrize("prompts", [[], [["a"], []], ["a", "b"]])
def test_prompts_are_a_list_for_each_class(prompts: list[list[str]]) -> None:
    with pytest.raises(InputError, match="list of prompts for each class"):
        zero_shot_head(Colours(), prompts)
