"""Which vectors are taken for features."""

import pytest
import torch
from torch import Tensor, nn

from bezoar.data import noise_images
from bezoar.errors import DivergedError, ModelError
from bezoar.metrics import represent
from bezoar.models import convnet
from bezoar.runtime import Progress, Runtime

DATA = noise_images(5, size=8)
FLOAT = Runtime(dtype=torch.float32)


def images() -> Tensor:
    return DATA.images.float() / 255


def test_features_are_what_the_last_linear_layer_gets() -> None:
    net = convnet(3, width=4).train()
    found = represent(DATA, model=net, runtime=FLOAT)
    net.eval()
    with torch.no_grad():
        vectors, logits = net.features(images()), net(images())
    # half precision holds 11 bits
    torch.testing.assert_close(found.vectors[0].float(), vectors, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.logits[0].float(), logits, atol=1e-3, rtol=1e-3)
    assert found.vectors[0].dtype == torch.float16
    assert found.predicted.equal(logits.argmax(1))
    assert found.groups.equal(DATA.labels)
    loss = nn.functional.cross_entropy(logits, DATA.labels, reduction="none")
    torch.testing.assert_close(found.label_loss, loss, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_and_company_do_not_matter(batch_size: int) -> None:
    net = convnet(2, width=4)
    whole = represent(DATA, model=net)
    runtime = Runtime(batch_size=batch_size)
    part = represent(DATA.take(torch.tensor([4, 1])), model=net, runtime=runtime)
    assert part.take(torch.arange(2)).equal(whole.take(torch.tensor([4, 1])))


class Ending(nn.Module):
    """A network without a linear layer, which gives tokens and a map on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.tokens = nn.Identity()
        self.single = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        self.tokens(out.flatten(2).transpose(1, 2))
        self.single(out.flatten())
        pooled: Tensor = out.mean((2, 3))
        return pooled


@pytest.mark.parametrize("layer", [None, "conv", "tokens", "output"])
def test_maps_and_tokens_are_averaged(layer: str | None) -> None:
    net = Ending()
    found = represent(DATA, model=net, layer=layer, runtime=FLOAT)
    with torch.no_grad():
        expected = net(images())
    torch.testing.assert_close(found.vectors[0].float(), expected, atol=1e-3, rtol=1e-3)


def test_what_is_no_feature_is_refused() -> None:
    with pytest.raises(ModelError, match="a vector, a map or tokens"):
        represent(DATA, model=Ending(), layer="single")
    with pytest.raises(ModelError, match="name of a module"):
        represent(DATA, model=Ending(), layer="missing")

    class Huge(Ending):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) * 1e12
            return out

    with pytest.raises(DivergedError, match="finite features below 65,504"):
        represent(DATA, model=Huge(), layer="output")


def test_progress_ends_at_total() -> None:
    seen: list[Progress] = []
    represent(DATA, model=convnet(2, width=2), runtime=Runtime(progress=seen.append))
    assert [(p.stage, p.done, p.total) for p in seen] == [("represent", 5, 5)]
