"""What every method keeps. A new method adds one row to ROWS."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bezoar import (
    BCU,
    DVAE,
    MIMIC,
    UBT,
    ActivationClustering,
    Chain,
    CleanCLIP,
    CognitiveDistillation,
    Distillation,
    EncoderFineTuning,
    EncoderInversion,
    EnergyFilter,
    EnergyNet,
    Epic,
    ImageData,
    LipschitzPruning,
    LocalDensity,
    LossIsolation,
    NeighborOutlier,
    PairData,
    PairFineTuning,
    PairSimilarity,
    Progress,
    PureDDPM,
    PureEBM,
    Retraining,
    Runtime,
    ShortcutSqueezing,
    ShortcutTransplant,
    SpectralSignatures,
    Strip,
    TinyClip,
    UNet,
    Unlearning,
    WordTokenizer,
)
from bezoar.catalog import METHODS
from bezoar.data import noise_images
from bezoar.metrics import logits
from tests.repair.conftest import detection_of

DATA = noise_images(7)
SHUFFLED = torch.tensor([3, 0, 6, 2, 5, 1, 4])
VERBS = {"detect", "diagnose", "purify", "repair"}
# Of methods that run block by block:
STAGES = {"prepare", "score", "conclude", "witnesses", "confirm", "masks"}
STAGES |= {"from_features"}  # of methods that look at features
STAGES |= {"select"}  # of methods that rank all images, then treat some of them


class Classifier(nn.Sequential):
    """A small network with everything that a method might leave changed."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(), Pool()
            )


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.mean((2, 3))


def run_cd(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = CognitiveDistillation(steps=5, l1_weight=0.01, fill="colours")
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_squeezing(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    return ShortcutSqueezing().purify(data, seed=seed, runtime=runtime).data.images


def run_ac(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = ActivationClustering()
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_ss(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = SpectralSignatures()
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_no(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = NeighborOutlier(num_neighbors=2, pool_size=5)
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_strip(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = Strip(num_overlays=4)
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_li(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = LossIsolation(isolation_epochs=2, isolation_width=2, isolation_batch=4)
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_epic(data: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = Epic(
        subset_rate=0.5, epic_epochs=2, start_epoch=1, epic_width=2, epic_batch=4
    )
    return method.detect(data, model=model, seed=seed, runtime=runtime).scores


def run_pure_ebm(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    net = EnergyNet(num_filters=4, image_size=(8, 8))
    method = PureEBM(steps=3)
    return method.purify(data, energy=net, seed=seed, runtime=runtime).data.images


def run_pure_ddpm(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    net = UNet(channels=(4, 8), num_blocks=1)
    method = PureDDPM(steps=3)
    return method.purify(data, denoiser=net, seed=seed, runtime=runtime).data.images


def run_chain(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    nets = {
        "energy": EnergyNet(num_filters=4, image_size=(8, 8)),
        "denoiser": UNet(channels=(4, 8), num_blocks=1),
    }
    method = Chain(energy_steps=2, denoiser_steps=2, num_repeats=2)
    done = method.purify(data, **nets, seed=seed, runtime=runtime)  # type: ignore[arg-type]
    return done.data.images


def run_filter(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = EnergyFilter(denoiser_steps=3)
    energy = EnergyNet(num_filters=4, image_size=(8, 8))
    net = UNet(channels=(4, 8), num_blocks=1)
    done = method.purify(data, energy=energy, denoiser=net, seed=seed, runtime=runtime)
    return done.data.images


def run_dvae(data: ImageData, _: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    method = DVAE(width=4, latent_width=8, epochs=2, batch_size=4)
    return method.purify(data, seed=seed, runtime=runtime).data.images


def run_inversion(
    data: ImageData, model: nn.Module, seed: int, runtime: Runtime
) -> Tensor:
    method = EncoderInversion(
        steps=6, num_restarts=2, batch_size=4, cosine_target=0.9999
    )
    return method.diagnose(model, data=data, seed=seed, runtime=runtime).mask


def run_transplant(
    data: ImageData, _: nn.Module, seed: int, runtime: Runtime
) -> Tensor:
    method = ShortcutTransplant(epochs=2, width=2)
    taken = data.images.float() / 510 - 0.25
    return method.detect(data, perturbation=taken, seed=seed, runtime=runtime).scores


def run_repair(
    method: Unlearning | Retraining,
    data: ImageData,
    model: nn.Module,
    seed: int,
    runtime: Runtime,
) -> Tensor:
    found = detection_of(data, range(0, len(data), 3), interval=(0.0, 0.0))
    mended = method.repair(
        model, data=data, detection=found, seed=seed, runtime=runtime
    )
    return logits(mended.model, data)


class ImageText(TinyClip):
    """A fresh image-text model; two are alike."""

    def __init__(self) -> None:
        super().__init__(WordTokenizer.from_captions(["a red dog"]), resolution=24)


def run_pairs(
    method: CleanCLIP | PairFineTuning,
    _: ImageData,
    model: nn.Module,
    seed: int,
    runtime: Runtime,
) -> Tensor:
    assert isinstance(model, TinyClip)
    data = captioned(noise_images(12))
    mended = method.repair(model, data=data, seed=seed, runtime=runtime)
    assert isinstance(mended.model, TinyClip)
    with torch.no_grad():
        return mended.model.encode_images(DATA.images.float() / 255)


def run_similarity(
    data: ImageData, model: nn.Module, seed: int, runtime: Runtime
) -> Tensor:
    assert isinstance(model, TinyClip)
    alone = Runtime(batch_size=1, progress=runtime.progress)  # sums are rounded alike
    method = PairSimilarity()
    found = method.detect(captioned(data), model=model, seed=seed, runtime=alone)
    return found.scores


def run_density(
    data: ImageData, model: nn.Module, seed: int, runtime: Runtime
) -> Tensor:
    assert isinstance(model, TinyClip)
    alone = Runtime(batch_size=1, progress=runtime.progress)
    method = LocalDensity(num_neighbors=2, pool_size=5)
    found = method.detect(captioned(data), model=model, seed=seed, runtime=alone)
    return found.scores


def captioned(images: ImageData) -> PairData:
    words = [f"a {'red' if hash_of(i) % 3 else 'big'} dog" for i in images.ids]
    return PairData(images=images.images, captions=tuple(words), ids=images.ids)


def hash_of(image_id: str) -> int:
    return sum(image_id.encode())


def run_ubt(_: ImageData, model: nn.Module, seed: int, runtime: Runtime) -> Tensor:
    data = captioned(noise_images(160))
    # Without a test for words, so that there is something to forget.
    method = UBT(
        min_suspicious=64, word_filter=False, overfit_steps=2, steps=5, lr=1e-3
    )
    assert isinstance(model, TinyClip)
    mended = method.repair(
        model, data=data, reference=ImageText(), seed=seed, runtime=runtime
    )
    assert isinstance(mended.model, TinyClip)
    with torch.no_grad():
        return mended.model.encode_images(DATA.images.float() / 255)


def run_encoder(
    method: MIMIC | Distillation | EncoderFineTuning | BCU | LipschitzPruning,
    data: ImageData,
    model: nn.Module,
    seed: int,
    runtime: Runtime,
) -> Tensor:
    many = noise_images(32)  # a step of fewer is refused
    mended = method.repair(model, data=many, seed=seed, runtime=runtime)
    return logits(mended.model, data)


@dataclass(frozen=True, kw_only=True)
class Row:
    """How to run a method, and which of the promises it can give.

    ``run`` gives what the method made of each image (scores, purified images), or of
    the model (its logits on DATA, one row per image of DATA).
    """

    run: Callable[[ImageData, nn.Module, int, Runtime], Tensor]
    model: type[nn.Module] = Classifier
    random: bool = True  # another seed gives another result
    per_image: bool = True  # an image's result does not depend on the other images
    # Methods that train depend on batch size and order; their docstrings say so.
    trains: bool = False


ROWS: dict[str, Row] = {
    "cognitive-distillation": Row(run=run_cd),
    "pure-ebm": Row(run=run_pure_ebm),
    "pure-ddpm": Row(run=run_pure_ddpm),
    "chain": Row(run=run_chain),
    "energy-filter": Row(run=run_filter, per_image=False),
    "dvae": Row(run=run_dvae, per_image=False, trains=True),
    "shortcut-squeezing": Row(run=run_squeezing, random=False),
    "activation-clustering": Row(run=run_ac, random=False, per_image=False),
    "spectral-signatures": Row(run=run_ss, random=False, per_image=False),
    "strip": Row(run=run_strip, per_image=False),
    "loss-isolation": Row(run=run_li, trains=True, per_image=False),
    "epic": Row(run=run_epic, trains=True, per_image=False),
    "neighbor-outlier": Row(run=run_no, per_image=False),
    "encoder-inversion": Row(run=run_inversion, per_image=False),
    "shortcut-transplant": Row(run=run_transplant, trains=True, per_image=False),
    "unlearning": Row(
        run=partial(run_repair, Unlearning(rounds=2, batch_size=2)), trains=True
    ),
    "ubt": Row(run=run_ubt, model=ImageText, trains=True),
    "mimic": Row(
        run=partial(
            run_encoder,
            MIMIC(
                epochs=2,
                batch_size=32,
                information_epochs=2,
                information_hidden=4,
                taps=("2",),
            ),
        ),
        trains=True,
    ),
    "distillation": Row(
        run=partial(run_encoder, Distillation(epochs=2, batch_size=32, taps=("2",))),
        trains=True,
    ),
    "encoder-fine-tuning": Row(
        run=partial(run_encoder, EncoderFineTuning(epochs=2, batch_size=32)),
        trains=True,
    ),
    "lipschitz-pruning": Row(
        run=partial(run_encoder, LipschitzPruning(threshold=0.5)),
        random=False,
    ),
    "bcu": Row(
        run=partial(
            run_encoder, BCU(rates=(0.5,), epochs=2, batch_size=32, taps=("0",))
        ),
        trains=True,
    ),
    "clean-clip": Row(
        run=partial(run_pairs, CleanCLIP(epochs=1, batch_size=4)),
        model=ImageText,
        trains=True,
    ),
    "pair-fine-tuning": Row(
        run=partial(run_pairs, PairFineTuning(epochs=1, batch_size=4)),
        model=ImageText,
        trains=True,
    ),
    "pair-similarity": Row(run=run_similarity, model=ImageText, random=False),
    "local-density": Row(run=run_density, model=ImageText, per_image=False),
    "retraining": Row(
        run=partial(run_repair, Retraining(epochs=1, batch_size=2)), trains=True
    ),
}
ALONE = [name for name, row in ROWS.items() if row.per_image and not row.trains]


def run(
    name: str, data: ImageData = DATA, *, seed: int = 0, batch_size: int = 7
) -> Tensor:
    row = ROWS[name]
    return row.run(data, row.model(), seed, Runtime(batch_size=batch_size))


def shuffled(data: ImageData) -> ImageData:
    return data.take(SHUFFLED[:4])


def test_every_method_has_a_row() -> None:
    assert ROWS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS.values())
def test_a_method_has_one_verb_with_the_common_end(method: type) -> None:
    public = {
        name: member
        for name, member in vars(method).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }
    (verb,) = public.keys() & VERBS
    assert public.keys() - {verb} <= STAGES
    assert list(inspect.signature(public[verb]).parameters)[-2:] == ["seed", "runtime"]


@pytest.mark.parametrize("method", METHODS.values())
def test_settings_are_frozen_keyword_only_and_explained(method: type) -> None:
    assert is_dataclass(method)
    assert all(f.kw_only for f in fields(method))
    assert hash(method()) == hash(method())  # frozen, and equal by settings
    text = inspect.getdoc(method) or ""
    assert all(f"    {f.name}: " in text for f in fields(method))  # the CLI's help


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if not row.trains])
def test_batch_size_does_not_matter(name: str) -> None:
    assert run(name, batch_size=1).equal(run(name))


@pytest.mark.parametrize("name", ALONE)
def test_order_and_company_do_not_matter(name: str) -> None:
    assert run(name, shuffled(DATA)).equal(run(name)[SHUFFLED[:4]])


@pytest.mark.parametrize("name", ROWS)
def test_same_seed_same_result_and_global_state_untouched(name: str) -> None:
    before = torch.get_rng_state()
    assert run(name, seed=3).equal(run(name, seed=3))
    assert run(name, seed=3).equal(run(name, seed=4)) is not ROWS[name].random
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", ROWS)
def test_nothing_the_caller_gave_is_changed(name: str) -> None:
    model, data = ROWS[name].model(), noise_images(7)
    model.train()
    next(model.children()).eval()  # mixed modes must come back mixed
    next(model.parameters()).requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    slopes = [p.requires_grad for p in model.parameters()]
    ROWS[name].run(data, model, 0, Runtime())
    torch.testing.assert_close(model.state_dict(), weights, atol=0, rtol=0)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == slopes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert data.images.equal(DATA.images)


@pytest.mark.parametrize("name", ROWS)
def test_progress_ends_at_total(name: str) -> None:
    seen: list[Progress] = []
    row = ROWS[name]
    row.run(DATA, row.model(), 0, Runtime(batch_size=2, progress=seen.append))
    assert seen
    assert all(0 < p.done <= p.total for p in seen)
    assert seen[-1].done == seen[-1].total
