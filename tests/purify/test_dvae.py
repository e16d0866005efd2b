"""The two passes against stubs, one image at a time, and what is told of them."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bezoar.attacks import ClassNoise
from bezoar.data import ImageData, noise_images
from bezoar.errors import InputError
from bezoar.models import DVAENet, load_dvae
from bezoar.purify import DVAE
from bezoar.purify.dvae_passes import perturbation_columns, run_pass, stored
from bezoar.runtime import Runtime

TINY = DVAE(width=4, latent_width=8, epochs=2, batch_size=4)
DATA = noise_images(8)


class Stub(DVAENet):
    """Takes a constant for the perturbation, and draws the image as it was."""

    def __init__(self, constant: float) -> None:
        super().__init__(2, width=4, latent_width=8, image_size=(8, 8))
        self.constant = constant

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        still = torch.zeros(len(images), *self.latent_shape)
        return images, still, still

    def latent(self, *_: Tensor | None) -> Tensor:
        return self.seen

    def perturbation(self, *_: Tensor, features: Tensor) -> Tensor:
        self.seen = (features - self.constant).clamp(0, 1)
        return torch.full_like(features, self.constant)

    def reconstruct(self, latent: Tensor) -> Tensor:
        return latent

    seen = torch.zeros(1, 8, 4, 4)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
def test_the_stages_subtract_round_subtract_and_draw(rounding: str) -> None:
    method = replace(TINY, rounding=rounding)  # type: ignore[arg-type]
    done = method.purify(DATA, networks=(Stub(0.1), Stub(0.05)))

    def whole(x: Tensor) -> Tensor:
        return (x * 255).round() if rounding == "nearest" else (x * 255).floor()

    first = whole((DATA.images.float() / 255 - 0.1).clamp(0, 1))
    second = whole((first / 255 - 0.05).clamp(0, 1))
    assert done.data.images.equal(second.to(torch.uint8))
    assert done.extras["rough_perturbation"].allclose(torch.tensor(0.1).half())
    assert done.extras["fine_perturbation"].allclose(torch.tensor(0.05).half())
    change = (done.data.images.float() - DATA.images.float()) / 255
    torch.testing.assert_close(
        done.columns["reconstruction_mse"], change.square().mean((1, 2, 3))
    )
    alone = replace(method, stages="rough").purify(
        DATA, networks=(Stub(0.1), Stub(0.05))
    )
    assert alone.data.images.equal(first.to(torch.uint8))


def test_rounding_down_darkens_by_half_a_level() -> None:
    values = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    near = stored(values, rounding="nearest").float() / 255 - values
    down = stored(values, rounding="floor").float() / 255 - values
    assert abs(near.mean().item()) < 1e-4
    assert down.mean().item() == pytest.approx(-0.5 / 255, abs=1e-4)


def test_with_networks_an_image_is_treated_by_itself() -> None:
    nets = tuple(
        DVAENet(2, width=4, latent_width=8, image_size=(8, 8), seed=s).eval()
        for s in (0, 1)
    )
    whole = TINY.purify(DATA, networks=nets)  # type: ignore[arg-type]
    rows = torch.tensor([5, 2])
    part = TINY.purify(
        DATA.take(rows),
        networks=nets,  # type: ignore[arg-type]
        runtime=Runtime(batch_size=1),
    )
    assert part.data.images.equal(whole.data.images[rows])
    other = TINY.purify(DATA, networks=nets, seed=1)  # type: ignore[arg-type]
    assert not other.data.images.equal(whole.data.images)
    still = replace(TINY, sample_latent=False)
    one, two = (still.purify(DATA, networks=nets, seed=s) for s in (0, 1))  # type: ignore[arg-type]
    assert one.data.images.equal(two.data.images)


def test_other_labels_change_what_is_subtracted_alone() -> None:
    net = DVAENet(2, width=4, latent_width=8, image_size=(8, 8)).eval()
    settings = {
        "sample": True,
        "rounding": "nearest",
        "stage": "rough",
        "seed": 0,
        "runtime": Runtime(),
        "reconstruct": False,
    }
    swapped = replace(DATA, labels=1 - DATA.labels)
    _, one = run_pass(net, DATA, **settings)  # type: ignore[arg-type]
    _, two = run_pass(net, swapped, **settings)  # type: ignore[arg-type]
    assert not one.allclose(two, atol=1e-3)


class Backwards:
    """An engine whose last block is done first, by another copy of the work."""

    def __init__(self) -> None:
        self.num_items = 0

    @contextmanager
    def running(
        self, work: Callable[[Any], Any], items: Iterator[Any], *, device: torch.device
    ) -> Iterator[Iterator[Any]]:
        assert device.type == "cpu"
        there = pickle.loads(pickle.dumps(work))
        every = list(items)
        self.num_items += len(every)
        yield map(there, reversed(every))


def test_workers_of_an_engine_come_to_the_same_bytes() -> None:
    data = noise_images(150)
    nets = tuple(
        DVAENet(2, width=4, latent_width=8, image_size=(8, 8), seed=s).eval()
        for s in (0, 1)
    )
    engine = Backwards()
    runtimes = Runtime(), Runtime(engine=engine, block_size=100)
    here, there = (
        TINY.purify(data, networks=nets, runtime=runtime)  # type: ignore[arg-type]
        for runtime in runtimes
    )
    assert engine.num_items == 2 * 3  # two stages; 64, 64 and 22 images
    assert here.data.images.equal(there.data.images)
    for name, value in here.extras.items():
        assert value.equal(there.extras[name]), name


def test_columns_are_those_computed_by_hand() -> None:
    one = torch.zeros(4, 1, 2, 2)
    one[:, 0, 0, 0] = torch.tensor([3.0, 1.0, 3.0, 1.0])
    one[0, 0, 0, 1] = 4.0
    data = ImageData(
        images=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor([0, 1, 0, 1]),
        ids=("a", "b", "c", "d"),
        class_names=("x", "y"),
    )
    found = perturbation_columns({"rough": one / 2, "fine": one / 2}, data)
    assert found["perturbation_l2"].tolist() == [5, 1, 3, 1]
    # the mean of class 0 is (3, 2): cosines (3 3 + 4 2) / (5 13 ** 0.5) and so on
    expected = torch.tensor([17 / 5, 13**0.5, 3.0, 13**0.5]) / 13**0.5
    torch.testing.assert_close(found["perturbation_cosine"], expected)


def test_a_run_leaves_its_networks_and_tells_its_rates(tmp_path: Path) -> None:
    runtime = Runtime(work_dir=tmp_path)
    done = TINY.purify(DATA, runtime=runtime)
    nets = (
        load_dvae(tmp_path / "rough.safetensors"),
        load_dvae(tmp_path / "fine.safetensors"),
    )
    assert TINY.purify(DATA, networks=nets).data.images.equal(done.data.images)
    assert [row["stage"] for row in done.history] == ["rough"] * 2 + ["fine"] * 2
    kl = done.history[-1]["kl"]
    assert isinstance(kl, float)
    bits = kl * 4 * 4 / torch.tensor(2.0).log().item() / 64
    assert done.figures["fine_bits_per_pixel"] == pytest.approx(bits)
    assert done.provenance.forwards_per_image == 3 * 4 + 2
    assert any("above its limit" in text for text in done.health)  # two epochs


class Other(Stub):
    """Draws nothing of the image."""

    def reconstruct(self, latent: Tensor) -> Tensor:
        stream = torch.Generator().manual_seed(int(latent.sum()))
        return torch.rand(latent.shape, generator=stream)


def test_a_set_in_which_nothing_is_found_comes_back_as_it_was() -> None:
    clean = replace(noise_images(500), labels=torch.arange(500) % 2)
    method = replace(TINY, alarm_gap=0.15)
    still = method.purify(clean, networks=(Stub(0.1), Other(0.0)))
    assert still.data.images.equal(clean.images)
    assert "No sign that the set was made unlearnable" in still.summary
    assert "The images are those given" in still.summary
    poisoned = ClassNoise(eps=0.5).poison(clean).data
    found = method.purify(poisoned, networks=(Stub(0.0), Other(0.0)))
    assert not found.data.images.equal(poisoned.images)
    assert "The set looks made unlearnable" in found.summary
    assert found.figures["given_network"] > 0.9
    assert found.figures["purified_network"] < 0.7


def marked() -> ImageData:
    """Return images of two classes, the second with a pixel that is always white."""
    data = noise_images(400)
    images = 96 + data.images // 4
    images[data.labels == 1, :, 2, 5] = 255
    return replace(data, images=images)


def test_the_quick_way_takes_a_pattern_off_and_trains_nothing(tmp_path: Path) -> None:
    data, quick = marked(), DVAE.quick()
    still = replace(quick, smooth_noise=0.0, perturbation_mse=0.02)
    done = still.purify(data, runtime=Runtime(work_dir=tmp_path))
    assert "A pattern was found in 2 of 2 classes" in done.summary
    assert "lost the pattern of their class" in done.summary
    assert done.figures["classes_with_pattern"] == 2
    assert done.history == ()
    assert done.provenance.forwards_per_image == 0
    white = data.labels == 1
    gap = [
        (images[white, :, 2, 5].float().mean() - images[~white, :, 2, 5].float().mean())
        for images in (data.images, done.data.images)
    ]
    assert gap[0] > 100
    assert gap[1].abs() < 5
    others = (done.data.images.int() - data.images.int()).abs()
    others[:, :, 2, 5] = 0
    assert others.float().mean() < 1
    # With the pattern kept, an image alone comes out as it did in company.
    kept = load_dvae(tmp_path / "rough.safetensors")
    noisy = replace(still, smooth_noise=1.0)
    whole = noisy.purify(data, networks=(kept, kept)).data.images
    one = noisy.purify(data.take(torch.tensor([7])), networks=(kept, kept))
    assert not any("no pattern was looked for" in text for text in one.health)
    assert one.data.images[0].equal(whole[7])
    assert not whole.equal(done.data.images)
    assert not noisy.purify(data, networks=(kept, kept), seed=1).data.images.equal(
        whole
    )
    moved = (whole.float() - done.data.images.float()).mean((2, 3)).std()
    height = 255 * kept.get_buffer("means").square().mean().sqrt()
    assert moved == pytest.approx(height.item(), rel=0.25)


def test_the_quick_way_leaves_clean_images_and_strong_classes() -> None:
    clean = noise_images(400)
    done = DVAE.quick().purify(clean)
    assert done.data.images.equal(clean.images)
    assert "No pattern was found in any of 2 classes" in done.summary
    assert "400 images were looked at and left" in done.summary
    assert "filters and smooth patterns are not looked for" in done.summary
    spared = replace(DVAE.quick(), perturbation_mse=1e-4).purify(marked())
    assert spared.data.images.equal(marked().images)
    assert any("even, odd are too much alike" in text for text in spared.health)
    few = DVAE.quick().purify(marked().take(torch.arange(80)))
    assert few.figures["classes_with_pattern"] == 0
    told = "no pattern was looked for in even, odd, which takes at least 50 images"
    assert any(told in text for text in few.health)
    assert "No pattern was found in any of 0 classes" in few.summary
    both = replace(DVAE.mini(), epochs=1, width=2, latent_width=4).purify(clean)
    assert "No pattern was found in any of 2 classes" in both.summary
    assert "passed 1 limited autoencoder at" in both.summary
    assert [row["stage"] for row in both.history] == ["fine"]
    assert both.provenance.forwards_per_image == 3 + 1


def test_larger_images_take_three_halvings_and_a_vector() -> None:
    method = replace(
        DVAE.large_images(), width=2, latent_width=4, epochs=1, batch_size=2
    )
    data = noise_images(2, size=64)
    assert method.purify(data).data.images.shape == (2, 3, 64, 64)


def test_what_makes_no_sense_is_refused() -> None:
    bare = ImageData(
        images=DATA.images, labels=torch.full((8,), -1), ids=DATA.ids, class_names=()
    )
    with pytest.raises(InputError, match="name the --label-column"):
        TINY.purify(bare)
    wrong = DVAENet(3, width=4, latent_width=8, image_size=(8, 8))
    with pytest.raises(InputError, match="expected networks that were trained on"):
        TINY.purify(DATA, networks=(wrong, wrong))
    plain = DVAENet(2, width=4, latent_width=8, image_size=(8, 8))
    with pytest.raises(InputError, match="patterns of the classes for smooth_noise"):
        DVAE.quick().purify(DATA, networks=(plain, plain))
    for settings, message in (
        ({"epochs": 0}, "at least 1"),
        ({"lr": 0.0}, "lr and grad_clip above 0"),
        ({"perturbation_start_rate": 2.0}, "a share of the epochs"),
        ({"stages": "rough", "warm_start": True}, "expected no warm_start"),
        ({"stages": "rough", "output": "subtracted"}, "always subtracts"),
        ({"perturbation_input": "mean", "warm_start": True}, "trains no network"),
        ({"smooth_noise": 1.0}, "expected smooth_noise of 0 but for"),
        (
            {"perturbation_input": "mean", "stages": "rough", "alarm_gap": 0.1},
            "expected no alarm_gap",
        ),
        ({"perturbation_input": "mean", "smooth_noise": -1.0}, "of at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            DVAE(**settings)


def test_networks_stay_as_they_are() -> None:
    net = DVAENet(2, width=4, latent_width=8, image_size=(8, 8)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    TINY.purify(DATA, networks=(net, net))
    torch.testing.assert_close(net.state_dict(), before, atol=0, rtol=0)
    assert net.training
    assert isinstance(net, nn.Module)
