"""Which images are poisoned, and what happens to labels, for every attack."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from bezoar.attacks import (
    ATTACKS,
    SIG,
    Attack,
    BadNets,
    Blended,
    LabelConsistent,
    Trojan,
    WaNet,
)
from bezoar.attacks.poisoning import (
    by_chunks,
    check_attack,
    check_between,
    check_choice,
    check_target,
    choose,
    truncate,
)
from bezoar.data import ImageData, noise_images
from bezoar.errors import InputError
from bezoar.results import Poisoned
from bezoar.runtime import Progress, Runtime

DIRTY: tuple[type[BadNets | Blended | Trojan | WaNet], ...] = (
    BadNets,
    Blended,
    Trojan,
    WaNet,
)
DATA = noise_images(100, size=16)
SHUFFLED = torch.randperm(100, generator=torch.Generator().manual_seed(5))


def small_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        )


def poison(
    attack: Attack,
    data: ImageData = DATA,
    *,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Poisoned:
    if isinstance(attack, LabelConsistent):
        few = replace(attack, steps=2)
        return few.poison(data, model=small_model(), seed=seed, runtime=runtime)
    return attack.poison(data, seed=seed, runtime=runtime)


def poisoned_ids(found: Poisoned) -> set[str]:
    return {found.data.ids[i] for i in found.poison_indices}


EVERY = pytest.mark.parametrize("attack", [a() for a in ATTACKS.values()], ids=ATTACKS)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.333, 0.996, 1.0])
def test_dirty_label_poisons_the_rounded_share_of_all_images(rate: float) -> None:
    found = BadNets(poison_rate=rate).poison(DATA)
    assert len(found.poison_indices) == round(rate * 100)


@pytest.mark.parametrize("rate", [0.01, 0.034, 0.08])
def test_clean_label_poisons_that_share_within_the_target_class(rate: float) -> None:
    found = SIG(poison_rate=rate, target_class=1).poison(DATA)
    assert len(found.poison_indices) == round(rate * 100)
    assert set(found.original_labels[found.is_poison].tolist()) == {1}


@EVERY
def test_only_poisoned_images_change(attack: Attack) -> None:
    found = poison(attack)
    changed = (found.data.images != DATA.images).flatten(1).any(1)
    assert changed.equal(found.is_poison)
    assert found.data.ids == DATA.ids
    assert found.data.class_names == DATA.class_names


@EVERY
def test_labels_change_for_dirty_label_alone(attack: Attack) -> None:
    found = poison(replace(attack, target_class=1))
    assert found.original_labels.equal(DATA.labels)
    assert found.data.labels[~found.is_poison].equal(DATA.labels[~found.is_poison])
    assert set(found.data.labels[found.is_poison].tolist()) == {1}
    before = set(DATA.labels[found.is_poison].tolist())
    assert before == ({0, 1} if isinstance(attack, DIRTY) else {1})


@EVERY
def test_the_training_trigger_is_that_of_the_test(attack: Attack) -> None:
    found = poison(attack)
    chosen = found.is_poison
    applied = attack.apply(DATA.images[chosen])
    if isinstance(attack, LabelConsistent):  # which adds noise beside the patch
        applied, found_patch = (
            x[..., -3:, -3:] for x in (applied, found.data.images[chosen])
        )
        assert found_patch.equal(applied)
    else:
        assert found.data.images[chosen].equal(applied)


@EVERY
def test_order_does_not_matter(attack: Attack) -> None:
    there, back = poison(attack), poison(attack, DATA.take(SHUFFLED))
    assert poisoned_ids(there) == poisoned_ids(back)
    assert there.data.images[SHUFFLED].equal(back.data.images)
    assert there.data.labels[SHUFFLED].equal(back.data.labels)


@EVERY
def test_names_of_the_images_do_not_matter(attack: Attack) -> None:
    renamed = replace(DATA, ids=tuple(f"shard-{i % 7}/{i}" for i in range(100)))
    assert poison(attack, renamed).is_poison.equal(poison(attack).is_poison)


@EVERY
def test_batch_size_does_not_matter(attack: Attack) -> None:
    one = poison(attack, runtime=Runtime(batch_size=1)).data.images
    assert one.equal(poison(attack, runtime=Runtime(batch_size=3)).data.images)


@EVERY
def test_the_seed_alone_decides(attack: Attack) -> None:
    assert poison(attack, seed=3).data.images.equal(poison(attack, seed=3).data.images)
    assert poisoned_ids(poison(attack, seed=3)) != poisoned_ids(poison(attack, seed=4))


@EVERY
def test_global_random_state_and_the_callers_data_stay(attack: Attack) -> None:
    data = noise_images(100, size=16)
    # Not Python's own random state: the type checks of these tests draw from it.
    before = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    poison(attack, data)
    attack.apply(data.images)
    after = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    assert before[0].equal(after[0])
    assert str(before[1]) == str(after[1])
    assert data.images.equal(DATA.images)
    assert data.labels.equal(DATA.labels)


@EVERY
def test_results_share_no_memory_with_what_was_given(attack: Attack) -> None:
    data = noise_images(100, size=16)
    found = poison(attack, data)
    found.data.images.zero_()
    found.data.labels.zero_()
    found.original_labels.zero_()
    attack.apply(data.images).zero_()
    assert data.images.equal(DATA.images)
    assert data.labels.equal(DATA.labels)


@EVERY
def test_provenance_names_the_attack_and_its_settings(attack: Attack) -> None:
    found = poison(attack, seed=9)
    source = found.provenance
    assert type(attack) is ATTACKS[source.method]
    assert source.settings.keys() == {f.name for f in fields(attack)}
    assert source.seed == 9
    # two passes forward and two back, for 5 of 100 images
    expected = 2 * 2 * 0.05 if isinstance(attack, LabelConsistent) else 0
    assert source.forwards_per_image == pytest.approx(expected)


@EVERY
def test_progress_counts_poisoned_images_to_the_end(attack: Attack) -> None:
    seen: list[Progress] = []
    poison(attack, runtime=Runtime(batch_size=2, progress=seen.append))
    assert [p.done for p in seen] == [2, 4, 5]
    assert {p.total for p in seen} == {5}


@EVERY
def test_settings_are_frozen_keyword_only_and_explained(attack: Attack) -> None:
    assert all(f.kw_only for f in fields(attack))
    assert attack == type(attack)()
    assert hash(attack) == hash(type(attack)())
    assert all(f"    {f.name}: " in (attack.__doc__ or "") for f in fields(attack))
    with pytest.raises(FrozenInstanceError):
        attack.poison_rate = 0.1  # type: ignore[misc]


def test_a_lower_rate_poisons_a_part_of_a_higher_one() -> None:
    low, high = (BadNets(poison_rate=r).poison(DATA) for r in (0.1, 0.3))
    assert poisoned_ids(low) < poisoned_ids(high)


def test_the_choice_is_even_over_the_images() -> None:
    counts = sum(
        choose(
            DATA, poison_rate=0.2, target_class=0, clean_label=False, seed=seed
        ).int()
        for seed in range(200)
    )
    # 200 draws at 0.2: mean 40, standard deviation 5.7
    assert isinstance(counts, torch.Tensor)
    assert counts.sum() == 200 * 20
    assert 15 < counts.min() <= counts.max() < 65


def test_equal_images_are_told_apart_by_their_ids() -> None:
    data = replace(DATA, images=DATA.images[:1].repeat(100, 1, 1, 1))
    found = BadNets().poison(data)
    assert len(found.poison_indices) == 5
    assert poisoned_ids(BadNets().poison(data.take(SHUFFLED))) == poisoned_ids(found)


def test_a_class_too_small_is_refused_with_the_rate_that_fits() -> None:
    data = replace(DATA, labels=(torch.arange(100) >= 3).long())
    with pytest.raises(InputError, match=r"at least 5 images .* got 3; .* to 0\.03 or"):
        SIG().poison(data)
    assert len(SIG(poison_rate=0.03).poison(data).poison_indices) == 3


def test_a_rate_that_takes_no_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least one of 100 images, got 0\.004"):
        BadNets(poison_rate=0.004).poison(DATA)


def test_a_target_outside_the_classes_is_refused() -> None:
    with pytest.raises(InputError, match="from 0 to 1, got 2; choose one of the 2"):
        BadNets(target_class=2).poison(DATA)


def test_images_without_labels_are_refused() -> None:
    data = replace(DATA, labels=torch.full((100,), -1), class_names=())
    with pytest.raises(InputError, match="expected labelled images"):
        check_target(data, 0)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
@EVERY
def test_a_rate_outside_its_range_is_refused(attack: Attack, rate: float) -> None:
    with pytest.raises(InputError, match="a share of all images given"):
        replace(attack, poison_rate=rate)


@pytest.mark.parametrize("attack", [SIG, LabelConsistent])
def test_clean_label_stops_at_eight_percent(attack: type[SIG]) -> None:
    with pytest.raises(InputError, match=r"at most 0\.08 for this clean-label attack"):
        attack(poison_rate=0.081)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="target_class of at least 0, got -1"):
        check_attack(0.1, -1)
    with pytest.raises(InputError, match=r"expected alpha from 0\.01 to 1, got 0"):
        check_between("alpha", 0.0, low=0.01, high=1)
    with pytest.raises(InputError, match="one of a, b, got 'c'; choose"):
        check_choice("form", "c", ("a", "b"))
    with pytest.raises(InputError, match=r"expected alpha from 0\.01 to 1, got 1\.5"):
        Blended(alpha=1.5)
    with pytest.raises(InputError, match="expected grid_size from 2 to 1024, got 1"):
        WaNet(grid_size=1)
    with pytest.raises(InputError, match="expected strength from 0 to 100, got -1"):
        WaNet(strength=-1.0)
    with pytest.raises(InputError, match="no delta or frequency with the wrapped form"):
        SIG(form="wrapped", frequency=5)
    with pytest.raises(InputError, match="expected at least 1 step, got 0"):
        LabelConsistent(steps=0)


def test_truncation_clamps_and_forgives_rounding() -> None:
    levels = torch.tensor([-3.0, 0.999, 99.9999999, 100.5, 255.9, 300.0])
    assert truncate(levels.double()).tolist() == [0, 0, 100, 100, 255, 255]


def test_chunks_cover_everything_in_order() -> None:
    images = noise_images(513, size=2).images
    sizes: list[int] = []

    def invert(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return 255 - part

    assert by_chunks(images, invert).equal(255 - images)
    assert sizes == [256, 256, 1]
