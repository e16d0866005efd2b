"""Training of energies: its direction, its bank, its health, and going on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bezoar import Progress, Runtime
from bezoar.data import noise_images
from bezoar.errors import DivergedError, InputError, StorageError
from bezoar.models import EnergyNet, fingerprint
from bezoar.train import EnergyTraining, forget_training, train_energy
from bezoar.train.energy import _begin, _learn, _window
from bezoar.train.energy_health import WINDOW, Health

IMAGES = noise_images(40).images
SMALL = EnergyTraining(
    num_filters=4,
    num_updates=WINDOW,
    batch_size=8,
    lr=1e-3,
    chain_steps=2,
    bank_size=32,
    average_rate=0.9,
    augment="crop_flip",
)
FLOAT = Runtime(dtype=torch.float32)


def weights(settings: EnergyTraining, *, seed: int = 0) -> list[Tensor]:
    net = train_energy(IMAGES, settings=settings, seed=seed, runtime=FLOAT)
    return list(net.state_dict().values())


def test_an_update_pulls_real_images_below_the_chains() -> None:
    settings = replace(SMALL, lr=1e-2)
    state = _begin(IMAGES, settings=settings, start=None, seed=0)
    real = torch.full((8, 3, 8, 8), 0.5)
    walked = -real
    gaps = [
        _learn(state, real, walked, update=update, settings=settings).item()
        for update in range(5)
    ]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_the_bank_goes_on_from_chains_or_real_images(rate: float) -> None:
    settings = replace(SMALL, rejuvenation_rate=rate, chain_steps=1, step_size=1e-6)
    state = _begin(IMAGES, settings=settings, start=None, seed=0)
    before = state.bank.clone()
    _window(state, IMAGES, 20, settings=settings, seed=0, runtime=FLOAT)
    # steps this small leave chains where they were, so what moved is a new image
    moved = (state.bank - before).abs().amax((1, 2, 3)) > 1e-3
    touched = 1 - (1 - rate * 8 / 32) ** 20
    assert moved.float().mean().item() == pytest.approx(touched, abs=0.15)


def test_the_mean_of_the_weights_trails_behind() -> None:
    last = weights(replace(SMALL, average_rate=0.0))
    mean = weights(SMALL)
    assert any(not a.equal(b) for a, b in zip(last, mean, strict=True))


def test_a_seed_makes_the_same_network_again_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, again, other = weights(SMALL), weights(SMALL), weights(SMALL, seed=1)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))
    assert torch.get_rng_state().equal(before)


def test_a_killed_training_goes_on_to_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bezoar.train.energy._KEPT", 2)
    settings = replace(SMALL, num_updates=4 * WINDOW, chain_steps=1)

    def killed(progress: Progress) -> None:
        if progress.done == 3 * WINDOW:
            raise KeyboardInterrupt

    runtime = replace(FLOAT, work_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_energy(
            IMAGES, settings=settings, runtime=replace(runtime, progress=killed)
        )
    seen: list[Progress] = []
    on = replace(runtime, progress=seen.append)
    resumed = train_energy(IMAGES, settings=settings, runtime=on)
    assert [p.done for p in seen] == [3 * WINDOW, 4 * WINDOW]
    straight = weights(settings)
    pairs = zip(resumed.state_dict().values(), straight, strict=True)
    assert all(a.equal(b) for a, b in pairs)
    assert len(resumed.card["curves"]) == 4  # type: ignore[arg-type]
    forget_training(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_is_given_little_time_takes_it_up_again(tmp_path: Path) -> None:
    settings = replace(SMALL, num_updates=2 * WINDOW, chain_steps=1)
    seen: list[Progress] = []
    runtime = replace(FLOAT, work_dir=tmp_path, progress=seen.append)
    half = train_energy(IMAGES, settings=settings, minutes=1e-6, runtime=runtime)
    assert half.card["updates"] == WINDOW
    same = train_energy(IMAGES, settings=settings, minutes=0, runtime=runtime)
    assert fingerprint(same) == fingerprint(half)
    whole = train_energy(IMAGES, settings=settings, runtime=runtime)
    assert [p.done for p in seen] == [WINDOW, 2 * WINDOW]
    pairs = zip(whole.state_dict().values(), weights(settings), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "energy.training.safetensors").write_bytes(b"x")
    with pytest.raises(StorageError, match="damaged"):
        train_energy(IMAGES, settings=SMALL, runtime=Runtime(work_dir=tmp_path))


def figures(**changed: float) -> dict[str, float]:
    return {"drift": 0.2, "bank_mean": 0.0, "bank_std": 0.5, **changed}


@pytest.mark.parametrize(
    ("gaps", "changed", "fault"),
    [
        ([0.1, -0.1] * 25, {}, None),
        ([0.9, 0.8] * 25, {}, "apart"),
        ([0.1] * 50, {}, "changed sides 0 times"),
        ([float("nan")] * 50, {}, "NaN"),
        ([0.1, -0.1] * 25, {"drift": 3.5}, "drift"),
        ([0.1, -0.1] * 25, {"bank_std": 0.7}, "0.20 off"),
    ],
)
def test_a_sick_training_is_stopped_with_advice(
    gaps: list[float], changed: dict[str, float], fault: str | None
) -> None:
    health = Health(data_mean=0.0, data_std=0.5)
    if fault is None:
        health.check(1000, gaps=gaps, **figures(**changed))
        return
    with pytest.raises(DivergedError, match=f"{fault}.*another seed"):
        health.check(1000, gaps=gaps, **figures(**changed))


def test_a_step_size_far_too_large_is_found_out() -> None:
    with pytest.raises(DivergedError, match="expected chains"):
        train_energy(
            IMAGES,
            settings=replace(SMALL, num_updates=400, step_size=0.3, lr=0.1),
            runtime=FLOAT,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_updates": 0},
        {"bank_size": 4},
        {"lr": 0.0},
        {"rejuvenation_rate": 1.5},
        {"average_rate": 1.0},
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


def test_a_network_is_taken_up_and_left_as_it_was(tmp_path: Path) -> None:
    first = train_energy(IMAGES, settings=SMALL, runtime=FLOAT)
    before = fingerprint(first)
    still = replace(SMALL, lr=1e-12, average_rate=0.0)
    nets = [
        train_energy(
            IMAGES,
            settings=still,
            start=start,
            runtime=replace(FLOAT, work_dir=tmp_path),
        )
        for start in (first, None)
    ]
    assert fingerprint(first) == before
    for old, new in zip(first.parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=0)
    told = {"start": before, "updates": WINDOW, "seed": 0}
    found = nets[0].card["start"]
    assert isinstance(found, dict)
    assert {key: found[key] for key in told} == told
    assert "start" not in nets[1].card  # and the other's checkpoint was not taken
    assert fingerprint(nets[1]) != fingerprint(nets[0])


def test_a_network_of_other_sizes_is_no_start() -> None:
    start = EnergyNet(num_filters=8, image_size=(8, 8))
    with pytest.raises(InputError, match=r"\(4, 1, 3, \(8, 8\)\).*got \(8, "):
        train_energy(IMAGES, settings=SMALL, start=start, runtime=FLOAT)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least 128 images"):
        train_energy(IMAGES)


def test_steps_fall_at_shares_of_the_training() -> None:
    settings = EnergyTraining(num_updates=120, lr_milestones=(1 / 3, 0.5), lr=1.0)
    assert [settings.rate(u) for u in (0, 39, 40, 60)] == [1, 1, 0.1, 0.1**2]
