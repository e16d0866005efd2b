"""UBT as a whole, on a model in which the backdoor is one column of a matrix."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.models import DualEncoder, pair_similarities
from bezoar.repair import UBT
from bezoar.results import Detection, Evaluation, Provenance, Verdict
from bezoar.runtime import Progress, Runtime
from tests.repair.pairs import NAMES, Table, names_given, pairs

FLOAT = Runtime(dtype=torch.float32)
QUICK = replace(
    UBT.mini(),
    suspicious_rate=0.25,
    min_suspicious=64,
    overfit_lr=0.01,
    overfit_steps=8,
    record_every=4,
    lr=0.05,
    weight_decay=0.0,
)
SEVEN = NAMES.index("seven")


def found_by(data: PairData, scores: Tensor, **columns: Tensor) -> Detection:
    return Detection(
        ids=data.ids,
        labels=data.labels,
        class_names=data.class_names,
        scores=scores,
        p_values=None,
        flagged=torch.zeros(len(data), dtype=torch.bool),
        reasons=("",) * len(data),
        columns=columns,
        verdict=Verdict(
            status="ranking",
            rule="none",
            summary="",
            num_flagged=0,
            expected_false_alarms=0.0,
        ),
        provenance=Provenance(
            method="x", settings={}, seed=0, seconds=0, forwards_per_image=1
        ),
    )


def weights(model: DualEncoder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("discovery", ["auto", "gap", "overfit"])
def test_a_backdoor_that_is_one_column_is_found_and_forgotten(discovery: str) -> None:
    data, is_planted = pairs()
    model, reference = Table(backdoor=True), Table(backdoor=False)
    before = weights(model)
    assert (names_given(model, data)[is_planted] == SEVEN).all()
    result = replace(QUICK, discovery=discovery).repair(  # type: ignore[arg-type]
        model, data=data, reference=reference, runtime=FLOAT
    )
    assert result.status == "repaired"
    isolated = result.chosen("isolated", data.ids)
    assert isolated.sum() >= 32
    assert is_planted[isolated].all()
    assert (names_given(result.model, data) == data.labels).float().mean() > 0.99  # type: ignore[arg-type]
    after = weights(result.model)  # type: ignore[arg-type]
    # The text tower, the scale and the statistics are as they were ...
    kept = [k for k in before if k.startswith(("words", "scale", "norm.running"))]
    assert all(after[k].equal(before[k]) for k in kept)
    assert not after["visual.weight"].equal(before["visual.weight"])
    # ... and so is all of the caller's model.
    assert all(value.equal(before[k]) for k, value in model.state_dict().items())
    assert result.detection is not None
    found = result.detection
    assert found.flagged.equal(isolated)
    assert found.verdict.target_class == SEVEN
    assert found.reasons[int(isolated.nonzero()[0])].startswith("caption names 'seven'")
    assert ("similarity_overfit" in found.columns) == (discovery != "gap")
    assert {row["word"] for row in result.tables["words"] if row["passes"]} == {"seven"}
    assert result.figures["similarity_after"] < result.figures["similarity_before"]
    assert result.seconds["forget"] > 0


def test_auto_leaves_the_overfitting_out_where_the_gap_is_plain() -> None:
    data, _ = pairs()
    result = replace(QUICK, suspicious_rate=0.5).repair(
        Table(backdoor=True), data=data, reference=Table(backdoor=False)
    )
    assert result.status == "repaired"
    assert "overfit" not in result.seconds


def test_nothing_planted_is_nothing_found_and_nothing_changed() -> None:
    data, _ = pairs(planted=0, noise=60)
    model, seen = Table(backdoor=False), list[Progress]()
    before = weights(model)
    result = QUICK.repair(
        model,
        data=data,
        reference=Table(backdoor=False),
        runtime=replace(FLOAT, progress=seen.append),
    )
    assert result.status == "nothing found"
    assert result.model is model
    assert all(value.equal(before[k]) for k, value in model.state_dict().items())
    assert result.detection is not None
    assert not result.detection.flagged.any()
    assert not result.detection.found
    assert seen[-1].done == seen[-1].total


def test_a_backdoor_that_did_not_take_is_nothing_to_forget() -> None:
    """The planted captions stand out, but the model does not hang on them."""
    data, _ = pairs()
    clean = Table(backdoor=False)
    gap = torch.linspace(1, 0, len(data))  # some detector ranks them first
    result = QUICK.repair(clean, data=data, detection=found_by(data, gap))
    assert result.status == "nothing found"
    (row,) = [
        r for r in result.tables["words"] if (r["word"], r["top"]) == ("seven", 32)
    ]
    assert (row["share"], row["passes"]) == (1.0, False)


def test_steps_that_make_nothing_better_leave_the_model_and_say_so() -> None:
    data, _ = pairs()
    model, before = Table(backdoor=True), weights(Table(backdoor=True))
    wild = replace(QUICK, lr=3.0, forget_loss="constraint", keep_weight=0.0)
    result = wild.repair(  # so long strides only do harm
        model, data=data, reference=Table(backdoor=False), runtime=FLOAT
    )
    assert result.status == "stopped"
    assert result.kept == 0
    assert not result.changed
    assert "the model is unchanged" in result.summary
    assert "repaired" not in result.summary
    after = weights(result.model)  # type: ignore[arg-type]
    assert all(after[name].equal(before[name]) for name in before)


def test_another_detector_can_take_the_place_of_a_reference() -> None:
    data, is_planted = pairs()
    model = Table(backdoor=True)
    scores = is_planted.float() + 0.1 * torch.rand(len(data))
    result = QUICK.repair(model, data=data, detection=found_by(data, scores))
    assert result.status == "repaired"
    assert is_planted[result.chosen("isolated", data.ids)].all()
    assert "overfit" not in result.seconds


def test_similarities_of_a_detection_are_those_of_stage_0() -> None:
    data, _ = pairs()
    model, reference = Table(backdoor=True), Table(backdoor=False)
    a, b = (
        pair_similarities(m, data.images, data.captions) for m in (reference, model)
    )
    told = found_by(
        data, torch.zeros(len(data)), similarity_model=b, similarity_reference=a
    )
    runs = [
        QUICK.repair(model, data=data, detection=told, runtime=FLOAT),
        QUICK.repair(model, data=data, reference=reference, runtime=FLOAT),
    ]
    one, two = (weights(run.model) for run in runs)  # type: ignore[arg-type]
    assert all(one[name].equal(two[name]) for name in one)
    assert runs[0].image_ids == runs[1].image_ids


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    data, _ = pairs()
    model, reference = Table(backdoor=True), Table(backdoor=False)
    first, again, other = (
        weights(
            QUICK.repair(
                model, data=data, reference=reference, seed=seed, runtime=FLOAT
            ).model  # type: ignore[arg-type]
        )
        for seed in (0, 0, 1)
    )
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["visual.weight"].equal(other["visual.weight"])


def test_plain_unlearning_takes_the_head_of_the_ranking_as_it_is() -> None:
    plain = replace(
        QUICK,
        rank="similarity",
        word_filter=False,
        local_words=False,
        forget_loss="ascent",
    )
    data, _ = pairs(planted=0)
    result = plain.repair(
        Table(backdoor=False), data=data, reference=Table(backdoor=False)
    )
    assert result.changed
    assert len(result.image_ids["isolated"]) == plain.num_unlearn


def test_the_callers_measure_is_in_the_history() -> None:
    data, _ = pairs()
    result = QUICK.repair(
        Table(backdoor=True),
        data=data,
        reference=Table(backdoor=False),
        evaluate=lambda _: Evaluation(clean_accuracy=0.5, num_clean=2),
    )
    assert all(row["clean_accuracy"] == 0.5 for row in result.history)


def test_a_reference_or_a_detection_of_these_pairs_is_needed() -> None:
    data, _ = pairs(total=200)
    model = Table(backdoor=True)
    other, _ = pairs(total=201)
    scores = torch.rand(200)
    with pytest.raises(InputError, match="got neither"):
        QUICK.repair(model, data=data)
    with pytest.raises(InputError, match="got both"):
        QUICK.repair(
            model, data=data, reference=model, detection=found_by(data, scores)
        )
    told = found_by(other, torch.rand(201))
    with pytest.raises(InputError, match="201 with other ids"):
        QUICK.repair(model, data=data, detection=told)
    with pytest.raises(InputError, match="detection without them"):
        replace(QUICK, discovery="overfit").repair(
            model, data=data, detection=found_by(data, scores)
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"suspicious_rate": 1.5},
        {"min_suspicious": 32},
        {"steps": 0},
        {"num_partial": -1},
        {"lr": 0.0},
        {"keep_weight": -1.0},
        {"stop_rate": -0.1},
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        UBT(**settings)  # type: ignore[arg-type]
