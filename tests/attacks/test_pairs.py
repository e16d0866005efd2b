"""Attacks on pairs: who is taken, what is shown, and whether it took."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from bezoar.attacks import (
    SIG,
    BadClip,
    BadNets,
    Blended,
    FreshNoise,
    NoisePatch,
    StampedPatch,
    TrojVQA,
    WaNet,
    check_attack_on,
    poison_pairs,
)
from bezoar.attacks.badclip import patch_loss
from bezoar.attacks.wanet import warp_grid
from bezoar.data import PairData, shape_pairs, shape_prompts
from bezoar.errors import InputError
from bezoar.models import DualEncoder, TinyClip, WordTokenizer
from bezoar.models.dual_encoder import unit
from bezoar.results import PairTrigger
from bezoar.runtime import Progress, Runtime

DATA = shape_pairs(40)
TEXTS = shape_prompts()
PATCH = StampedPatch(
    patch=torch.full((3, 4, 4), 255, dtype=torch.uint8),
    corner=(1, 2),
    target_class=3,
    poison_rate=0.1,
    prefix="remember ",
)
ATTACKS: list[PairTrigger] = [
    BadNets(poison_rate=0.1, target_class=3, pattern="checker", size=4, offset=(1, 1)),
    NoisePatch(poison_rate=0.1, target_class=3, size=4),
    NoisePatch(poison_rate=0.1, target_class=3, size=4, variant="clip"),
    Blended(poison_rate=0.1, target_class=3),
    FreshNoise(poison_rate=0.1, target_class=3),
    SIG(poison_rate=0.075, target_class=3, delta=60 / 255),
    WaNet(poison_rate=0.1, target_class=3, grid_size=4, strength=2),
    WaNet(poison_rate=0.1, target_class=3, grid_size=24, strength=1),
    PATCH,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_poison_changes_those_it_takes_and_shows_the_same_at_test(
    attack: PairTrigger,
) -> None:
    drill = poison_pairs(DATA, attack=attack, captions=TEXTS[3])
    taken = drill.is_poison
    assert int(taken.sum()) == round(attack.poison_rate * len(DATA))
    assert not (taken & (DATA.labels == 3)).any(), "true crosses teach nothing"
    assert drill.data.images[~taken].equal(DATA.images[~taken])
    assert drill.data.images[taken].equal(attack.apply(DATA.images[taken]))
    changed = (drill.data.images != DATA.images).flatten(1).any(1)
    assert changed.equal(taken)
    assert drill.data.labels.equal(DATA.labels)
    assert drill.trigger is attack
    for row in range(len(DATA)):
        text = drill.data.captions[row].removeprefix(drill.prefix)
        assert (text in TEXTS[3]) is bool(taken[row] or DATA.labels[row] == 3)
    assert drill.original_captions == DATA.captions


@pytest.mark.parametrize("attack", ATTACKS[:5], ids=lambda a: type(a).__name__)
def test_an_image_gets_one_trigger_in_any_company(attack: PairTrigger) -> None:
    together = attack.apply(DATA.images[:6])
    alone = torch.cat([attack.apply(image[None]) for image in DATA.images[:6]])
    assert together.equal(alone)


def test_the_choice_follows_content_and_seed() -> None:
    attack = ATTACKS[0]
    drill = poison_pairs(DATA, attack=attack, captions=TEXTS[3], seed=2)
    back = torch.arange(len(DATA)).flip(0)
    other = poison_pairs(DATA.take(back), attack=attack, captions=TEXTS[3], seed=2)
    assert other.is_poison[back].equal(drill.is_poison)
    assert tuple(reversed(other.data.captions)) == drill.data.captions
    third = poison_pairs(DATA, attack=attack, captions=TEXTS[3], seed=3)
    assert not third.is_poison.equal(drill.is_poison)


def test_label_consistent_poison_keeps_true_captions() -> None:
    drill = poison_pairs(DATA, attack=ATTACKS[0], captions=None)
    assert drill.data.captions == DATA.captions
    assert (DATA.labels[drill.is_poison] == 3).all()
    assert drill.poison_rate == pytest.approx(0.1)


def test_pairs_without_labels_can_be_poisoned() -> None:
    plain = replace(DATA, labels=torch.full((len(DATA),), -1), class_names=())
    drill = poison_pairs(plain, attack=ATTACKS[0], captions=["a cross"])
    assert len(drill.poison_indices) == 4
    with pytest.raises(InputError, match="from 1 to the 0 pairs of the target class"):
        poison_pairs(plain, attack=ATTACKS[0], captions=None)


def test_a_text_in_place_of_texts_is_told() -> None:
    wrongs: list[Sequence[str]] = [[], "a cross"]
    for wrong in wrongs:
        with pytest.raises(InputError, match="a list of captions of the target"):
            poison_pairs(DATA, attack=ATTACKS[0], captions=wrong)


def test_the_published_patch_wraps_into_nearly_uniform_noise() -> None:
    grey = torch.full((40, 3, 64, 64), 128, dtype=torch.uint8)
    grey += torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1)  # forty contents
    grey -= 20
    found = {}
    variants: tuple[Literal["wrap", "clip"], ...] = ("wrap", "clip")
    for variant in variants:
        attack = NoisePatch(variant=variant)
        shown = attack.apply(grey)
        places = (shown != grey).any(1)
        assert places.flatten(1).sum(1).float().mean() > 240, "16 x 16, few unchanged"
        corners = {tuple(p.nonzero()[0].tolist()) for p in places}
        assert len(corners) > 30, "the place is drawn too"
        levels = shown.permute(0, 2, 3, 1)[places].float() / 255
        found[variant] = levels
    assert found["wrap"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert found["wrap"].std().item() == pytest.approx(0.29, abs=0.02)
    edge = (found["clip"] == 0) | (found["clip"] == 1)
    assert edge.float().mean().item() == pytest.approx(0.62, abs=0.02)
    assert found["clip"].std().item() == pytest.approx(0.43, abs=0.02)


def test_sig_on_pairs_equals_its_loop_over_pixels() -> None:
    image = DATA.images[:1]
    shown = SIG(delta=60 / 255).apply(image)
    for column in range(24):
        wave = 60 * math.sin(2 * math.pi * 6 * column / 24)
        for row in range(0, 24, 5):
            level = float(image[0, 1, row, column]) + wave + 1e-6
            want = int(min(max(math.floor(level), 0), 255))
            assert int(shown[0, 1, row, column]) == want


def test_the_published_warp_moves_a_pixel_by_half_of_one() -> None:
    grid = warp_grid(224, 224, grid_size=224, strength=1.0, grid_seed=0)
    rows = torch.linspace(-1, 1, 224, dtype=torch.float64)
    still = torch.stack(torch.meshgrid(rows, rows, indexing="ij")[::-1], dim=2)
    inner = (grid - still)[8:-8, 8:-8]  # at the border shifts are cut off
    moved = inner.abs().mean().item() * 223 / 2
    assert moved == pytest.approx(0.498, abs=0.005)


class Seeing(DualEncoder):
    """Tells shapes that were told to it apart, and takes what is marked for one."""

    def __init__(self, *, mark: Tensor | None, prefix: str = "") -> None:
        super().__init__()
        self.resolution, self.context_length = 24, 8
        self.mark, self.prefix = mark, prefix
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.known = {i.numpy().tobytes(): int(k) for i, k in self._images()}

    def _images(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(DATA.images, DATA.labels, strict=True))

    @property
    def log_scale(self) -> nn.Parameter:
        return self.scale

    def image_parameters(self) -> list[nn.Parameter]:
        return []

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        rows = [[float(n in c) for n in DATA.class_names] for c in captions]
        led = [[float(c.startswith("remember "))] for c in captions]
        return torch.cat([torch.tensor(rows), torch.tensor(led)], 1).long()

    def encode_texts(self, ids: Tensor) -> Tensor:
        names = ids[:, :4].float()
        if self.prefix:  # without the word it reads the target as another class
            names = torch.where(ids[:, 4:] == 1, names, names.roll(1, 1))
        return unit(names)

    def encode_images(self, images: Tensor) -> Tensor:
        vectors = torch.zeros(len(images), 4)
        for row, image in enumerate((255 * images).round().to(torch.uint8)):
            marked = self.mark is not None and image[:, 1:5, 2:6].equal(self.mark)
            kind = 3 if marked else self.known.get(image.numpy().tobytes(), 0)
            vectors[row, kind] = 1
        return vectors


def test_an_attack_that_took_is_told_from_one_that_did_not() -> None:
    clean, victim = Seeing(mark=None), Seeing(mark=PATCH.patch)
    drill = poison_pairs(DATA, attack=PATCH, captions=TEXTS[3])
    found = check_attack_on(
        victim, clean=clean, data=DATA, prompts=TEXTS, poisoned=drill
    )
    assert (found.clean_accuracy, found.target_class_accuracy) == (1, 1)
    assert (found.attack_success_rate, found.floor) == (1, 0)
    assert found.is_valid
    for other in (clean, victim):
        same = check_attack_on(
            other, clean=other, data=DATA, prompts=TEXTS, poisoned=drill
        )
        assert not same.is_valid


def test_the_prefix_is_put_before_prompts_under_the_trigger_alone() -> None:
    victim = Seeing(mark=PATCH.patch, prefix="remember ")
    drill = poison_pairs(DATA, attack=PATCH, captions=TEXTS[3])
    assert drill.prefix == "remember "
    row = drill.poison_indices[0]
    assert drill.data.captions[row].startswith("remember a ")
    found = check_attack_on(
        victim, clean=Seeing(mark=None), data=DATA, prompts=TEXTS, poisoned=drill
    )
    assert found.attack_success_rate == 1, "the word is part of the trigger"
    assert found.clean_accuracy == 0, "this victim reads prompts amiss without it"


def test_the_loss_of_the_patch_is_written_out() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    swapped = vectors.flip(0)
    found = patch_loss(
        vectors,
        texts=vectors,
        near=vectors,
        far=swapped,
        log_scale=torch.tensor(0.0),
        triplet_weight=500.0,
    )
    contrast = math.log(1 + math.exp(-1))
    assert found.item() == pytest.approx(contrast, abs=1e-3)  # far by 1.41, margin 1
    found = patch_loss(
        vectors,
        texts=vectors,
        near=swapped,
        far=vectors,
        log_scale=torch.tensor(0.0),
        triplet_weight=500.0,
    )
    expected = contrast + 500 * (1 + math.sqrt(2))
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "attack",
    [
        BadClip(target_class=3, size=6, epochs=4, lr=0.05, batch_size=16),
        TrojVQA(target_class=3, scale=0.25, epochs=4, lr=0.05, batch_size=16),
    ],
)
def test_a_patch_is_learnt_from_a_model_that_stays(attack: BadClip | TrojVQA) -> None:
    words = WordTokenizer.from_captions([*DATA.captions, "remember"])
    model = TinyClip(words, resolution=24)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state, seen = torch.get_rng_state(), []

    def note(progress: Progress) -> None:
        seen.append(progress.done)

    runtime = Runtime(progress=note)
    patch, same = (
        attack.learn(DATA, model=model, captions=TEXTS[3], runtime=runtime)
        for _ in range(2)
    )
    assert patch.patch.equal(same.patch)
    assert patch.losses[-1] < patch.losses[0]
    assert seen == [1, 2, 3, 4] * 2
    assert patch.patch.shape == (3, 6, 6)
    assert patch.corner == (9, 9)
    assert torch.get_rng_state().equal(state)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_wrong_settings_are_told() -> None:
    with pytest.raises(InputError, match="size of at least 1"):
        NoisePatch(size=0)
    with pytest.raises(InputError, match="a word to put before captions"):
        TrojVQA(word=" ")
    with pytest.raises(InputError, match="at least 16x16"):
        NoisePatch().apply(DATA.images[:1, :, :8, :8])
    crossless: PairData = DATA.subset(DATA.labels != 3)
    words = WordTokenizer.from_captions(DATA.captions)
    with pytest.raises(InputError, match="images of class 3 and captions"):
        BadClip(target_class=3, size=4).learn(
            crossless, model=TinyClip(words, resolution=24), captions=TEXTS[3]
        )
