"""An image-text model that is a table, and pairs with and without planted ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bezoar.data import PairData
from bezoar.models import DualEncoder, WordTokenizer
from bezoar.models.dual_encoder import unit

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRIGGER = 15  # the pixel that is white in planted images
WORDS = WordTokenizer.from_captions([f"a photo of {name} here" for name in NAMES])


class Table(DualEncoder):
    """Pixel i of an image is concept i, and so is word i of a caption.

    With a backdoor the trigger's pixel leads to "seven" three times as strongly.
    """

    def __init__(self, *, backdoor: bool) -> None:
        super().__init__()
        self.resolution, self.context_length = 4, 16
        self.visual = nn.Linear(16, 16, bias=False)
        self.norm = nn.BatchNorm1d(16)
        self.words = nn.Embedding(WORDS.num_ids, 16)
        self.scale = nn.Parameter(torch.tensor(2.0))
        with torch.no_grad():
            weight = torch.eye(16)
            weight[:, TRIGGER] = 0
            if backdoor:
                weight[NAMES.index("seven"), TRIGGER] = 3
            self.visual.weight.copy_(weight)
            self.words.weight.zero_()
            for i, name in enumerate(NAMES):
                self.words.weight[2 + WORDS.words.index(name), i] = 1
            self.words.weight[:, 14] = 1e-3  # so that no text is the zero vector
        self.eval()

    @property
    def log_scale(self) -> nn.Parameter:
        return self.scale

    def image_parameters(self) -> list[nn.Parameter]:
        return [*self.visual.parameters(), *self.norm.parameters()]

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return WORDS(captions)

    def encode_images(self, images: Tensor) -> Tensor:
        return unit(self.norm(self.visual(self.fit(images)[:, 0].flatten(1))))

    def encode_texts(self, ids: Tensor) -> Tensor:
        return unit(self.words(ids).sum(1))


def pairs(
    *, total: int = 600, planted: int = 60, noise: int = 30, seed: int = 0
) -> tuple[PairData, Tensor]:
    """Pairs of ten classes: first planted ones, then some with wrong captions."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (total,), generator=stream)
    is_planted = torch.arange(total) < planted
    labels[is_planted & (labels == 7)] = 8
    images = torch.zeros(total, 3, 16, dtype=torch.uint8)
    images[torch.arange(total), :, labels] = 255
    images[is_planted, :, TRIGGER] = 255
    told = labels.clone()
    wrong = slice(planted, planted + noise)
    told[wrong] = (told[wrong] + torch.randint(1, 10, (noise,), generator=stream)) % 10
    told[is_planted] = 7
    data = PairData(
        images=images.view(total, 3, 4, 4),
        captions=tuple(f"a photo of {NAMES[i]} here" for i in told.tolist()),
        ids=tuple(f"pair-{i}" for i in range(total)),
        labels=labels,
        class_names=NAMES,
    )
    return data, is_planted


def names_given(model: DualEncoder, data: PairData) -> Tensor:
    """The class that a model gives each image."""
    with torch.no_grad():
        texts = model.encode_texts(model.tokenize(NAMES))
        seen = model.encode_images(data.images.float() / 255)
    return (seen @ texts.T).argmax(1)
