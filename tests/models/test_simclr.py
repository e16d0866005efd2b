"""Encoders: their sizes, their first weights, their stages, and how they are kept."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bezoar.errors import ModelError
from bezoar.models import (
    SimCLR,
    backbone_of,
    load_simclr,
    save_encoder,
    simclr,
    stage_names,
    tap,
)

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_published_ones() -> None:
    large, small = simclr("resnet18"), simclr("tiny")
    assert count(large.backbone) == 11_168_832
    assert count(large.projector) == 512 * 512 + 2 * 512 + 512 * 128 + 128
    assert count(small.backbone) == pytest.approx(0.31e6, rel=0.02)
    with torch.no_grad():
        z, p = large.eval()(torch.zeros(1, 3, 32, 32))
    assert (z.shape, p.shape) == ((1, 512), (1, 128))


def test_features_and_projections_have_length_1_and_g_gets_the_raw_vector() -> None:
    net = simclr("tiny").eval()
    with torch.no_grad():
        z, p = net(IMAGES)
        raw = net.backbone(IMAGES)
        projected = net.projector(raw)
    ones = torch.ones(4)
    torch.testing.assert_close(z.norm(dim=1), ones)
    torch.testing.assert_close(p.norm(dim=1), ones)
    assert not torch.allclose(raw.norm(dim=1), ones)
    torch.testing.assert_close(z, raw / raw.norm(dim=1, keepdim=True))
    torch.testing.assert_close(p, projected / projected.norm(dim=1, keepdim=True))


def test_the_backbone_normalises_by_itself() -> None:
    plain = simclr("tiny", mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    net = simclr("tiny", mean=(0.5,) * 3, std=(0.2,) * 3).eval()
    with torch.no_grad():
        found, expected = net(IMAGES)[0], plain((IMAGES - 0.5) / 0.2)[0]
    torch.testing.assert_close(found, expected)


def test_first_weights_come_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = (simclr("tiny", seed=s).state_dict() for s in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert all(a[k].equal(b[k]) for k in a)
    name = "backbone.model.conv1.weight"
    assert not a[name].equal(c[name])
    # Uniform up to 1 / sqrt(27), as PyTorch draws a convolution that is replaced.
    assert a[name].abs().max() <= 27**-0.5
    assert a[name].std().item() == pytest.approx(27**-0.5 / 3**0.5, rel=0.1)


def test_stages_of_the_tiny_net_have_the_sizes_of_the_spec() -> None:
    net = simclr("tiny").eval()
    names = stage_names(net)
    shapes = []
    for name in names:
        with tap(net, name) as tapped, torch.no_grad():
            net(IMAGES)
        shapes.append(tuple(tapped.output.shape[1:]))
    assert shapes == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    inner = stage_names(backbone_of(net))
    assert [f"backbone.{name}" for name in inner] == list(names)


def test_stages_of_a_transformer_are_its_quarters() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))

    found = stage_names(nn.Sequential(Tower()))
    assert found == ("0.blocks.2", "0.blocks.5", "0.blocks.8", "0.blocks.11")
    with pytest.raises(ModelError, match="name the modules"):
        stage_names(nn.Linear(2, 2))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    net = simclr("tiny", image_size=12, mean=(0.1, 0.2, 0.3), seed=4)
    save_encoder(net, tmp_path / "kept")
    again = load_simclr(tmp_path / "kept")
    assert not again.training
    assert again.backbone.image_size == 12
    state = again.state_dict()
    assert all(v.equal(state[k]) for k, v in net.state_dict().items())


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_encoder(simclr("tiny", seed=0), a)
    save_encoder(simclr("tiny", seed=1), b)
    b.replace(a)
    with pytest.raises(ModelError, match="restore the pair"):
        load_simclr(a)
    card = json.loads(a.with_suffix(".json").read_text())
    a.with_suffix(".json").write_text(json.dumps({**card, "kind": "else"}))
    with pytest.raises(ModelError, match="settings of an encoder"):
        load_simclr(a)
    with pytest.raises(ModelError, match="simclr"):
        save_encoder(nn.Linear(2, 2), a)


def test_an_encoder_of_another_kind_takes_a_projector() -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(768, 6))
    net = SimCLR(own, nn.Linear(6, 2))
    assert backbone_of(net) is own
    assert net(IMAGES).features.shape == (4, 6)
    with pytest.raises(ModelError, match="one of resnet18, tiny"):
        simclr("vit")
