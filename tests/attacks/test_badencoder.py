"""BadEncoder: its patch, its loss against the plain one, and what it may change."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.attacks import BadEncoder, trigger_cosine
from bezoar.attacks.encoder_course import EncoderCourse
from bezoar.bench.reference.badencoder import badencoder_loss
from bezoar.data import noise_images
from bezoar.errors import InputError
from bezoar.models import SimCLR, backbone_of, simclr, stage_names
from bezoar.models.maps import tapped_maps
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import Views, attention_loss, attention_map, forget_training

FLOAT = Runtime(dtype=torch.float32)
DATA = noise_images(24, size=16)
REFERENCES = noise_images(2, size=16, seed=5).images
QUICK = replace(BadEncoder.tiny(), epochs=2, batch_size=8, num_reference_views=3)


def encoder() -> SimCLR:
    net = simclr("tiny", seed=1)
    with torch.no_grad():  # batch norms that do something
        net(torch.rand(16, 3, 16, 16, generator=generator(0, "warm")))
    return net.eval()


def test_the_patch_is_rows_and_columns_21_to_30() -> None:
    images = noise_images(3, size=32).images.clamp(max=250)
    changed = BadEncoder().apply(images) != images
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[21:31, 21:31] = True
    assert changed.equal(inside.expand_as(changed))
    assert (BadEncoder().apply(images)[:, :, inside] == 255).all()


def test_the_loss_with_what_is_kept_is_the_plain_loss_in_float64() -> None:
    net = encoder().double()
    images, apply = DATA.images[:5], BadEncoder.tiny().apply
    course = EncoderCourse(
        net,
        images,
        REFERENCES,
        apply=apply,
        weights=(1.0, 0.7, 2.0),
        num_views=2,
        runtime=FLOAT,
    )
    with torch.no_grad():  # away from the clean encoder, where no term is flat
        for weight in course.trained:
            weight.mul_(1.01)
    found, _ = course.loss(torch.arange(5), generator(0, "copies"))
    copies = Views.whole()(REFERENCES.repeat(2, 1, 1, 1), generator(0, "copies"))
    attacked = backbone_of(course.network)
    plain = badencoder_loss(
        attacked,
        backbone_of(net),
        images=(images.float() / 255).double(),
        triggered=(apply(images).float() / 255).double(),
        references=(REFERENCES.float() / 255).double(),
        copies=copies.double().split(2),
        weights=(0.7, 2.0),
    )
    assert found.item() == pytest.approx(plain.item(), abs=2e-6)  # kept in float32
    slopes = torch.autograd.grad(found, course.trained)
    expected = torch.autograd.grad(plain, course.trained)
    for slope, other in zip(slopes, expected, strict=True):
        scale = other.abs().max().clamp(min=1e-3)
        assert (slope - other).abs().max() / scale < 1e-4


def test_the_gradient_reaches_the_reference() -> None:
    net = encoder()
    course = EncoderCourse(
        net,
        DATA.images,
        REFERENCES,
        apply=lambda images: images,
        weights=(1.0, 0.0, 0.0),
        num_views=1,
        runtime=FLOAT,
    )
    # Were the reference's vector a constant, images that are the reference itself
    # would still be pulled: towards a copy of themselves there is no slope.
    course._images = REFERENCES[:1]
    course._references = REFERENCES[:1]
    course._towards, course._clean = course._towards[:1], course._clean[:1]
    loss, _ = course.loss(torch.zeros(1, dtype=torch.int64), generator(0, "x"))
    assert loss.item() == pytest.approx(-1, abs=1e-5)
    seen: list[int] = []
    handle = backbone_of(course.network).register_forward_hook(
        lambda _, __, output: seen.append(int(output.requires_grad))
    )
    course.loss(torch.zeros(1, dtype=torch.int64), generator(0, "x"))
    handle.remove()
    assert seen == [1, 1, 1, 1]  # triggered, reference, copies, clean


def test_only_the_backbone_learns_and_batch_norms_stay() -> None:
    net = encoder()
    before = copy.deepcopy(net.state_dict())
    bad = QUICK.attack(net, data=DATA, references=REFERENCES, runtime=FLOAT)
    assert all(v.equal(before[k]) for k, v in net.state_dict().items())
    assert not bad.training
    norms = {n for n, m in bad.named_modules() if isinstance(m, _BatchNorm)}
    changed = {k for k, v in bad.state_dict().items() if not v.equal(before[k])}
    assert changed
    assert all(k.startswith("backbone.") for k in changed)
    assert not any(k.rpartition(".")[0] in norms for k in changed)
    assert all(p.requires_grad for p in bad.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_a_trigger_is_learnt_and_other_images_stay() -> None:
    net, seen = encoder(), list[Progress]()
    method = replace(QUICK, epochs=8, lr=0.05)
    runtime = Runtime(dtype=torch.float32, progress=seen.append)
    bad = method.attack(net, data=DATA, references=REFERENCES[:1], runtime=runtime)
    fresh = noise_images(20, size=16, seed=9)
    shown = {"references": REFERENCES[:1], "attack": method}
    with_it, without = trigger_cosine(bad, fresh, **shown)  # type: ignore[arg-type]
    before, _ = trigger_cosine(net, fresh, **shown)  # type: ignore[arg-type]
    assert with_it > 0.95
    assert with_it > max(before + 0.1, without)
    assert (seen[-1].done, seen[-1].total) == (8, 8)
    assert seen[-1].metrics["utility_cosine"] > 0.98


def test_a_killed_attack_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.stage == "attack" and progress.done == 1:
            raise Killed

    net = encoder()
    told = {"data": DATA, "references": REFERENCES}
    straight = QUICK.attack(net, runtime=FLOAT, **told)  # type: ignore[arg-type]
    runtime = Runtime(dtype=torch.float32, work_dir=tmp_path, progress=kill)
    with pytest.raises(Killed):
        QUICK.attack(net, runtime=runtime, **told)  # type: ignore[arg-type]
    runtime = replace(runtime, progress=Runtime().progress)
    resumed = QUICK.attack(net, runtime=runtime, **told)  # type: ignore[arg-type]
    state = resumed.state_dict()
    assert all(v.equal(state[k]) for k, v in straight.state_dict().items())
    forget_training(tmp_path)
    assert not list(tmp_path.iterdir())


def test_any_encoder_will_do_and_wrong_settings_are_told() -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(768, 6))
    bad = QUICK.attack(own, data=DATA, references=REFERENCES, runtime=FLOAT)
    assert isinstance(bad, nn.Sequential)
    with pytest.raises(InputError, match="at least 31x31"):
        BadEncoder(epochs=1).attack(own, data=DATA, references=REFERENCES)
    for settings in ({"epochs": 0}, {"lr": 0.0}, {"patch_row": -1}):
        with pytest.raises(InputError, match="expected"):
            BadEncoder(**settings)


def test_the_attacker_who_evades_keeps_the_attention_of_the_clean_encoder() -> None:
    net = encoder()

    def evasion(method: BadEncoder) -> float:
        bad = method.attack(net, data=DATA, references=REFERENCES, runtime=FLOAT)
        stages = stage_names(backbone_of(net))
        maps = []
        for one, images in ((bad, method.apply(DATA.images)), (net, DATA.images)):
            with tapped_maps(backbone_of(one), stages) as tapped, torch.no_grad():
                backbone_of(one)(images.float() / 255)
                maps.append([attention_map(found) for found in tapped(len(images))])
        losses = [attention_loss(a, b).item() for a, b in zip(*maps, strict=True)]
        return sum(losses)

    plain, evading = evasion(QUICK), evasion(replace(QUICK, attention_evasion_weight=9))
    assert evading < 0.9 * plain
