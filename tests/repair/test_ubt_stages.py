"""The prior, the overfitting and the forgetting of UBT, each by itself."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from bezoar.errors import DivergedError, InputError
from bezoar.repair import UBT
from bezoar.repair.ubt_forget import unlearn
from bezoar.repair.ubt_loss import Forgetting, ToForget, forget_loss
from bezoar.repair.ubt_overfit import overfit, square_loss
from bezoar.repair.ubt_prior import margin, num_suspicious, split_by_similarity
from bezoar.repair.ubt_texts import passes
from bezoar.runtime import Runtime
from tests.repair.pairs import Table, pairs

FLOAT = Runtime(dtype=torch.float32)
SCALE = torch.tensor(math.log(10.0))
FORGETTING = replace(UBT.mini(), lr=0.05, weight_decay=0.0).forgetting


def at(similarity: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of one image and one text with a given cosine, on the graph."""
    image = torch.tensor([[similarity, math.sqrt(1 - similarity**2)]])
    return image.requires_grad_(), torch.tensor([[[1.0, 0.0]]])


@pytest.mark.parametrize(
    ("total", "rate", "least", "expected"),
    [
        (500_000, 0.004, 256, 2000),
        (3000, 0.15, 256, 450),
        (4000, 0.3, 256, 1200),
        (3000, 0.004, 256, 256),
        (300, 0.004, 256, 150),
    ],
)
def test_how_many_are_suspicious(
    total: int, rate: float, least: int, expected: int
) -> None:
    found = num_suspicious(total, suspicious_rate=rate, min_suspicious=least)
    assert found == expected


def test_suspicious_are_the_weak_and_trusted_the_strong_that_did_not_rise() -> None:
    a = torch.linspace(0, 1, 1000)
    b = a.clone()
    b[900:] += 0.5  # strong, but they rose
    found = split_by_similarity(b, a, suspicious_rate=0.1, min_suspicious=64, seed=0)
    assert sorted(found.suspicious.tolist()) == list(range(100))
    assert found.normal.min() >= 499
    assert found.normal.max() < 900
    assert len(found.normal) == len(found.normal.unique()) <= 500
    torch.testing.assert_close(found.scores, b - a)


def test_a_set_too_small_to_trust_anything_is_refused() -> None:
    with pytest.raises(InputError, match="at least 8 pairs that can be trusted"):
        split_by_similarity(
            torch.ones(8), torch.ones(8), suspicious_rate=0.5, min_suspicious=64, seed=0
        )


def test_the_margin_leaves_the_pairs_themselves_out() -> None:
    vectors = functional.normalize(torch.randn(40, 8), dim=1)
    texts = functional.normalize(torch.randn(40, 8), dim=1)
    plain = [
        (vectors[i] @ texts[j]).item() for i in range(40) for j in range(40) if i != j
    ]
    assert margin(vectors, texts).item() == pytest.approx(
        sum(plain) / len(plain), abs=1e-6
    )


def test_losses_by_hand() -> None:
    image, text = at(0.5)
    assert square_loss(torch.tensor([0.5])).item() == 0.25

    def loss(kind: str, low: float = 0.3) -> torch.Tensor:
        return forget_loss(image, text, margin=low, log_scale=SCALE, kind=kind)  # type: ignore[arg-type]

    assert loss("hinge").item() == pytest.approx(0.04)
    assert loss("constraint").item() == pytest.approx(2.25)
    (slope,) = torch.autograd.grad(loss("hinge", 0.5001), image)
    assert (slope == 0).all()  # exactly, once it is forgotten
    same = torch.ones(64, 1)
    told = forget_loss(same, same[:, None], margin=0.0, log_scale=SCALE, kind="ascent")
    assert told.item() == pytest.approx(-math.log(64), abs=1e-5)


def test_a_pass_shows_each_place_once() -> None:
    batches = passes(10, 3, torch.Generator().manual_seed(0))
    seen = torch.cat([next(batches) for _ in range(3)])
    assert len(seen.unique()) == 9
    assert len(next(passes(2, 8, torch.Generator()))) == 2


def test_overfitting_ends_when_all_pairs_look_alike() -> None:
    data, _ = pairs(total=200, planted=20)
    model = Table(backdoor=True)
    settings = replace(
        UBT(), overfit_lr=0.1, overfit_steps=400, record_every=4
    ).overfitting
    rows = torch.arange(64)
    found = overfit(
        model,
        data=data,
        suspicious=rows,
        normal=torch.arange(64, 200),
        settings=replace(settings, normal_weight=0.0),
        runtime=FLOAT,
    )
    assert found.steps < 400
    assert found.curve[-1] > 0.98 > found.curve[0]
    assert len(found.curve) == found.steps // 4
    again = replace(settings, loss="infonce", steps=4)
    other = overfit(
        model,
        data=data,
        suspicious=rows,
        normal=torch.arange(64, 200),
        settings=again,
        runtime=FLOAT,
    )
    assert other.steps == 4


def test_overfitting_that_diverges_is_told() -> None:
    data, _ = pairs(total=200)
    settings = replace(UBT(), overfit_lr=1e30, overfit_steps=8).overfitting
    with pytest.raises(DivergedError, match="lower overfit_lr"):
        overfit(
            Table(backdoor=True),
            data=data,
            suspicious=torch.arange(64),
            normal=torch.arange(64, 200),
            settings=settings,
            runtime=FLOAT,
        )


def sevens() -> ToForget:
    return ToForget(
        rows=torch.arange(20),
        texts=[("seven", "photo seven")] * 20,
        held_out=torch.arange(20, 30),
        held_out_texts=["seven"] * 10,
    )


def test_the_forgetting_ends_at_two_checks_and_no_earlier_than_step_25() -> None:
    data, _ = pairs()
    done = unlearn(
        Table(backdoor=True),
        data=data,
        forget=sevens(),
        normal=torch.arange(100, 600),
        margin=0.1,
        settings=FORGETTING,
        runtime=FLOAT,
    )
    steps = [row["step"] for row in done.history]
    assert steps[0] == 0
    assert 25 <= steps[-1] <= FORGETTING.steps
    assert done.reached
    assert done.history[done.kept]["similarity"] <= done.aim
    before = done.history[0]["similarity"]
    assert done.aim == pytest.approx(0.1 + 0.1 * (before - 0.1))


def test_forgetting_goes_down_to_distant_strangers_and_is_judged_by_the_mean() -> None:
    data, _ = pairs()
    model = Table(backdoor=True)
    strangers = torch.arange(100, 300)
    done = unlearn(
        model,
        data=data,
        forget=replace(sevens(), strangers=strangers),
        normal=torch.arange(100, 600),
        margin=0.9,  # of all texts: not asked where there are strangers
        settings=FORGETTING,
        runtime=FLOAT,
    )
    seen = model.encode_images(data.images[strangers].float() / 255)
    told = (seen @ model.encode_texts(model.tokenize(["seven"])).T)[:, 0]
    assert done.floor == pytest.approx(told.mean().item(), abs=1e-4)
    before = done.history[0]["similarity"]
    assert done.aim == pytest.approx(done.floor + 0.1 * (before - done.floor), abs=1e-4)
    assert done.reached


def test_the_best_state_comes_back_when_trusted_pairs_suffer() -> None:
    data, _ = pairs()
    wild = replace(FORGETTING, loss="constraint", lr=1.0, keep_weight=0.0)
    model = Table(backdoor=True)
    done = unlearn(
        model,
        data=data,
        forget=sevens(),
        normal=torch.arange(100, 600),
        margin=0.1,
        settings=wild,
        runtime=FLOAT,
    )
    assert "trusted pairs stayed more than 5% up for 4 checks" in done.stop_reason
    first, kept = done.history[0], done.history[done.kept]
    assert kept["keep_loss"] <= 1.05 * first["keep_loss"]
    assert done.history[-1]["keep_loss"] > 1.05 * first["keep_loss"]


def test_a_loss_that_rises_and_comes_back_does_not_end_the_forgetting() -> None:
    data, _ = pairs()
    done = unlearn(
        Table(backdoor=True),
        data=data,
        forget=sevens(),
        normal=torch.arange(100, 600),
        margin=0.1,
        settings=replace(FORGETTING, lr=0.1, forget_weight=100.0),
        runtime=FLOAT,
    )
    rise = [row["keep_loss"] / done.history[0]["keep_loss"] for row in done.history]
    assert max(rise[:4]) > 1.05  # early, and for two checks
    assert rise[done.kept] <= 1.05
    assert done.reached
    assert "were forgotten" in done.stop_reason


def test_the_last_state_can_be_had_for_controls() -> None:
    data, _ = pairs()
    done = unlearn(
        Table(backdoor=True),
        data=data,
        forget=sevens(),
        normal=torch.arange(100, 600),
        margin=0.1,
        settings=replace(FORGETTING, loss="constraint", lr=1.0, keep_weight=0.0),
        keep="last",
        runtime=FLOAT,
    )
    assert done.history[-1]["step"] == FORGETTING.steps
    assert done.kept == len(done.history) - 1


def test_both_towers_can_be_trained() -> None:
    data, _ = pairs()
    both: Forgetting = replace(FORGETTING, trainable="all", steps=5)
    model = Table(backdoor=True)
    done = unlearn(
        model,
        data=data,
        forget=sevens(),
        normal=torch.arange(100, 600),
        margin=0.1,
        settings=both,
        runtime=FLOAT,
    )
    state, given = done.model.state_dict(), model.state_dict()
    if done.kept:
        assert not state["words.weight"].equal(given["words.weight"])
    assert state["scale"].equal(given["scale"])


def test_a_forgetting_that_diverges_is_told() -> None:
    data, _ = pairs()
    with pytest.raises(DivergedError, match="lower lr"):
        unlearn(
            Table(backdoor=True),
            data=data,
            forget=sevens(),
            normal=torch.arange(100, 600),
            margin=0.1,
            settings=replace(FORGETTING, lr=1e30),
            runtime=FLOAT,
        )
