"""PureEBM against the plain loop, and what it must never do."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bezoar import EnergyNet, ImageData, PureEBM, Runtime
from bezoar.bench.reference.langevin import purify_plain, wrapped
from bezoar.data import content_keys, noise_images, to_uint8
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.models.langevin import keyed_noise, langevin
from bezoar.purify.energy_chains import Chains
from bezoar.runtime import generator

FLOAT = Runtime(dtype=torch.float32)
DATA = noise_images(3, size=16)


def steep(patch_size: int = 1) -> EnergyNet:
    """Return a network whose drift is as large as the noise, so that it shows."""
    net = EnergyNet(num_filters=4, patch_size=patch_size, image_size=(16, 16))
    with torch.no_grad():
        net.head.weight.mul_(20)
    return net


def flat() -> EnergyNet:
    net = EnergyNet(num_filters=4, image_size=(16, 16))
    with torch.no_grad():
        net.head.weight.zero_()
    return net


@pytest.mark.parametrize("patch_size", [1, 2])
def test_it_is_the_plain_loop(patch_size: int) -> None:
    net = steep(patch_size).requires_grad_(False)
    found = PureEBM(steps=12).purify(DATA, energy=net, runtime=FLOAT)
    still = PureEBM(steps=12).purify(DATA, energy=flat(), runtime=FLOAT)
    for place, key in enumerate(content_keys(DATA.images)):
        drawn = keyed_noise(
            [key],
            shape=(16 // patch_size, 16 // patch_size, 3 * patch_size**2),
            seed=0,
            stream="langevin",
            device=torch.device("cpu"),
        )
        noise = [
            functional.pixel_shuffle(next(drawn).movedim(3, 1), patch_size)
            for _ in range(12)
        ]
        image = DATA.images[place : place + 1]
        (expected,) = purify_plain(image, net=net, noise=noise.__getitem__, steps=12)
        # float32 in another order: a value on the edge may round to the other side
        steps = (found.data.images[place].int() - expected.int()).abs()
        assert steps.max() <= 1
        assert steps.float().mean() < 0.01
        drift = found.data.images[place].int() - still.data.images[place].int()
        assert drift.abs().float().mean() > 1  # the energy did matter


def test_values_are_clamped_and_then_rounded() -> None:
    ends = torch.tensor([-1.01, -1.0, 0.0, 0.999, 1.01])
    assert to_uint8((ends + 1) / 2).tolist() == [0, 0, 128, 255, 255]
    assert wrapped(ends).tolist() == [255, 0, 127, 254, 0]  # the official cast


def test_black_and_white_stay_so_near_the_ends() -> None:
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[1] = 255
    data = replace(DATA, images=images, labels=DATA.labels[:2], ids=DATA.ids[:2])
    after = PureEBM(steps=4).purify(data, energy=flat()).data.images
    assert after[0].max() < 30
    assert after[1].min() > 225


def test_without_energy_a_pattern_survives_whole() -> None:
    chains = Chains.of(flat(), image_shape=(3, 16, 16), runtime=FLOAT)
    clean = DATA.images.float() / 127.5 - 1
    pattern = 0.05 * torch.randn(clean.shape, generator=generator(0, "pattern")).sign()
    ends = [
        chains.walk(
            x,
            keys=DATA.ids,
            steps=20,
            walk=PureEBM().walk,
            seed=0,
            stream="s",
        )
        for x in (clean, clean + pattern)
    ]
    torch.testing.assert_close(ends[1] - ends[0], pattern, atol=1e-6, rtol=0)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_chain_in_squares_is_the_chain_of_the_image(patch_size: int) -> None:
    net = steep(patch_size)
    squares = Chains.of(net, image_shape=(3, 16, 16), runtime=FLOAT)
    plain = replace(squares, in_squares=False)
    layers, begins = squares.layers, DATA.images.float() / 127.5 - 1
    shape = tuple(layers.squares(begins).shape[1:])
    drawn = squares.noise(DATA.ids, shape=shape, seed=0, stream="s")
    steps, walk = 25, PureEBM().walk
    expected = langevin(
        begins,
        slope=plain.slope,
        noise=(layers.images(z[:3]) for z in drawn),
        steps=steps,
        walk=walk,
    )
    ends = squares.walk(
        begins, keys=DATA.ids, steps=steps, walk=walk, seed=0, stream="s"
    )
    assert (ends - begins).abs().max() > 0.1
    # float32, and layers that may add in another order for another number of images
    torch.testing.assert_close(ends, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [16, 19])
def test_a_short_walk_is_the_beginning_of_a_long_one(size: int) -> None:
    images = noise_images(2, size=size).images.float() / 127.5 - 1
    chains = Chains.of(steep(2), image_shape=(3, size, size), runtime=FLOAT)
    keys, walk = ("a", "b"), PureEBM().walk
    trace = chains.trace(images, keys=keys, grid=(7, 12), walk=walk, seed=0, stream="s")
    for steps, states in zip((7, 12), trace, strict=True):
        end = chains.walk(images, keys=keys, steps=steps, walk=walk, seed=0, stream="s")
        assert end.equal(states)


def test_the_columns_tell_what_happened() -> None:
    net = steep()
    done = PureEBM(steps=5).purify(DATA, energy=net, runtime=FLOAT)
    columns = done.columns
    with torch.no_grad():
        before, after = net(DATA.images / 255), net(done.data.images / 255)
    torch.testing.assert_close(columns["energy_before"], before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(columns["energy_after"], after, atol=1e-5, rtol=1e-5)
    assert columns["clipped_rate"].gt(0).all()
    assert columns["unlike_training"].eq(0).all()  # nothing is known about this net
    assert done.provenance.forwards_per_image == 12
    assert done.provenance.settings["energy"] == fingerprint(net)
    assert done.data.labels.equal(DATA.labels)


def test_images_unlike_those_of_the_training_are_told() -> None:
    net = steep()
    net.card = {"clean_quantiles": {"0.01": 1000.0, "0.99": 1001.0}}
    done = PureEBM(steps=1).purify(DATA, energy=net)
    assert "100 % of the images have energies" in done.health[0]


def test_one_image_among_many_and_in_a_large_batch() -> None:
    many = noise_images(70, size=16)
    whole = PureEBM(steps=3).purify(many, energy=steep()).data.images
    runtime = Runtime(batch_size=1)
    for place in (0, 63, 64, 69):
        one = many.take(torch.tensor([place]))
        alone = PureEBM(steps=3).purify(one, energy=steep(), runtime=runtime)
        assert alone.data.images[0].equal(whole[place])


def test_bfloat16_moves_few_values_far() -> None:
    runtime = Runtime(dtype=torch.bfloat16)
    pair: list[Tensor] = [
        PureEBM(steps=40).purify(DATA, energy=steep(), runtime=r).data.images.float()
        for r in (FLOAT, runtime)
    ]
    moved = (pair[0] - DATA.images).square().mean().sqrt()
    apart = (pair[0] - pair[1]).square().mean().sqrt()
    assert apart < 0.1 * moved  # the trial bound on slopes of random networks


def test_a_chain_that_changes_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="to change every image"):
        PureEBM(steps=1, step_size=1e-6).purify(DATA, energy=flat())


def test_a_chain_that_diverges_is_an_error() -> None:
    net = steep()
    with torch.no_grad():
        net.head.weight.fill_(torch.inf)
    with pytest.raises(DivergedError, match="finite chains"):
        PureEBM(steps=9).purify(DATA, energy=net, runtime=FLOAT)


def test_images_that_do_not_fit_the_network_are_refused() -> None:
    grey = replace(DATA, images=DATA.images[:, :1])
    with pytest.raises(InputError, match="of 3 channels"):
        PureEBM().purify(grey, energy=steep())
    with pytest.raises(InputError, match="16x16 pixels"):
        PureEBM().purify(noise_images(2), energy=steep(patch_size=2))


def test_an_image_of_another_size_is_purified() -> None:
    data: ImageData = noise_images(2, size=19)
    after = PureEBM(steps=2).purify(data, energy=steep()).data.images
    assert after.shape == (2, 3, 19, 19)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"step_size": 0.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected steps"):
        PureEBM(**wrong)  # type: ignore[arg-type]


def test_presets_are_those_of_the_paper() -> None:
    assert PureEBM.linear_transfer() == PureEBM(steps=500, temperature=7.5e-5)
    assert PureEBM.fine_tune() == PureEBM(steps=1000)
