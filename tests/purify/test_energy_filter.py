"""EnergyFilter: the energies given decide, and what they spare stays as it is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bezoar import EnergyFilter, EnergyNet, PureDDPM, Purification, Runtime, UNet
from bezoar.data import ImageData, noise_images
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.purify.denoising import Denoising
from bezoar.results import Scores

DATA = noise_images(70, size=16)  # more than a tile of either network
ENERGY = EnergyNet(num_filters=4, image_size=(16, 16))
FLOAT = Runtime(dtype=torch.float32)


def net() -> UNet:
    found = UNet(channels=(4, 8), num_blocks=1, seed=1)
    with torch.no_grad():  # the last layer begins at 0 and would hide the rest
        found.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    return found


def filtered(
    data: ImageData = DATA, *, rate: float = 0.5, runtime: Runtime = FLOAT
) -> Purification:
    method = EnergyFilter(denoiser_steps=4, purify_rate=rate)
    return method.purify(data, energy=ENERGY, denoiser=net(), seed=3, runtime=runtime)


def ddpm(data: ImageData) -> Tensor:
    method = PureDDPM(steps=4)
    return method.purify(data, denoiser=net(), seed=3, runtime=FLOAT).data.images


@pytest.mark.parametrize(("rate", "count"), [(0.3, 21), (0.5, 35), (0.01, 1)])
def test_the_most_energetic_share_is_denoised_and_the_rest_untouched(
    rate: float, count: int
) -> None:
    with torch.no_grad():
        energies = ENERGY(DATA.images.float() / 255)
    order = energies.argsort(descending=True)
    high, low = order[:count], order[count:]
    done = filtered(rate=rate)
    assert done.columns["purified"].nonzero().flatten().equal(high.sort().values)
    assert done.data.images[low].equal(DATA.images[low])
    assert done.data.images[high].equal(ddpm(DATA)[high])
    assert (done.data.images[high] != DATA.images[high]).flatten(1).any(1).all()
    # Of the raw images, for all of them; those that are left keep theirs.
    torch.testing.assert_close(done.columns["energy_before"], energies)
    after = done.columns["energy_after"]
    assert after[low].equal(done.columns["energy_before"][low])
    with torch.no_grad():
        torch.testing.assert_close(after, ENERGY(done.data.images.float() / 255))


def test_a_share_of_all_is_plain_denoising() -> None:
    done = filtered(rate=1.0)
    assert done.data.images.equal(ddpm(DATA))
    assert done.columns["purified"].sum() == 70


def test_neither_order_nor_batch_size_matters() -> None:
    done = filtered()
    mixed = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    other = filtered(DATA.take(mixed), runtime=replace(FLOAT, batch_size=1))
    assert other.data.images.equal(done.data.images[mixed])
    for name in ("energy_before", "energy_after", "purified"):
        assert other.columns[name].equal(done.columns[name][mixed])


def test_among_equal_energies_the_ids_decide() -> None:
    images = DATA.images[:1].expand(4, -1, -1, -1)
    same = replace(DATA.take(torch.arange(4)), images=images, ids=("b", "a", "d", "c"))
    chosen = filtered(same).columns["purified"].tolist()
    assert chosen == [1, 1, 0, 0]


def test_a_part_of_a_ranked_set_is_treated_as_in_the_set() -> None:
    done = filtered()
    only = frozenset(
        name
        for name, one in zip(DATA.ids, done.columns["purified"], strict=True)
        if one
    )
    part = DATA.take(torch.arange(5, 20))
    method = EnergyFilter(denoiser_steps=4)
    found = method.purify(
        part, energy=ENERGY, denoiser=net(), only=only, seed=3, runtime=FLOAT
    )
    assert found.data.images.equal(done.data.images[5:20])
    none = method.purify(
        part, energy=ENERGY, denoiser=net(), only=frozenset(), runtime=FLOAT
    )
    assert none.data.images.equal(part.images)


def test_it_tells_what_it_did_and_by_which_networks() -> None:
    done = filtered(rate=0.3)
    assert "21 of 70 images, those of the highest energy" in done.summary
    assert "no evidence of poison" in done.summary
    assert any("70 % of the images did not change" in line for line in done.health)
    settings = done.provenance.settings
    assert settings["energy"] == fingerprint(ENERGY)
    assert settings["denoiser"] == fingerprint(net())
    assert done.provenance.forwards_per_image == pytest.approx(1 + 0.3 * 5)


def test_what_would_purify_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"got 0\.001 of 70; raise purify_rate"):
        filtered(rate=0.001)
    still = lambda _, states, **__: states  # noqa: E731
    monkeypatch.setattr(Denoising, "walk", still)
    with pytest.raises(InputError, match="got all 35 as they were"):
        filtered()


def test_settings_and_networks_without_sense_are_told() -> None:
    for rate in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="purify_rate above 0"):
            EnergyFilter(purify_rate=rate)
    for steps in (0, 1001):
        with pytest.raises(InputError, match="denoiser_steps from 1"):
            EnergyFilter(denoiser_steps=steps)
    with pytest.raises(InputError, match="bezoar train-denoiser"):
        EnergyFilter().purify(DATA, energy=ENERGY)
    bad = Scores(
        ids=("a", "b"),
        labels=torch.zeros(2, dtype=torch.int64),
        columns={"energy_before": torch.tensor([0.0, torch.nan])},
    )
    with pytest.raises(DivergedError, match="nan for 'b'"):
        EnergyFilter().select(bad)
