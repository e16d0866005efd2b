"""What the recipes of UBT claim of one miniature and one seed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from bezoar.bench.clip_minis import (
    Drill,
    Mini,
    checkerboard,
    train_reference,
    train_victim,
)
from bezoar.bench.recipe import Claims
from bezoar.metrics import purity
from bezoar.models import DualEncoder, fingerprint
from bezoar.repair import CleanCLIP, PairFineTuning
from bezoar.repair.ubt_forget import unlearn
from bezoar.repair.ubt_loss import Forgetting, ToForget
from bezoar.results import Evaluation, Repair
from bezoar.runtime import Runtime, generator


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What a miniature must show.

    Attributes:
        planted: Pairs to plant.
        victim_accuracy: Least accuracy of a valid victim.
        victim_success: Least attack success of a valid victim.
        precision: Least share of poison among the isolated pairs.
        success: Most attack success after the repair; above the floor where
            ``above_floor``.
        above_floor: Whether the floor of the reference is added.
        accuracy_loss: Most accuracy lost.
        target_loss: Most accuracy lost in the target class.
        control_success: Least attack success after each control.
        tuned_success: Least attack success after fine-tuning.
    """

    planted: int
    victim_accuracy: float
    victim_success: float = 0.90
    precision: float = 0.85
    success: float
    above_floor: bool
    accuracy_loss: float
    target_loss: float
    control_success: float = 0.80
    tuned_success: float


DIGITS = Gates(
    planted=90,
    victim_accuracy=0.92,
    success=0.05,
    above_floor=False,
    accuracy_loss=0.02,
    target_loss=0.08,
    tuned_success=0.60,
)
PHOTOS = Gates(
    planted=120,
    victim_accuracy=0.48,
    success=0.10,
    above_floor=True,
    accuracy_loss=0.04,
    target_loss=0.15,
    tuned_success=0.80,
)


def claim_all(
    claims: Claims,
    mini: Mini,
    gates: Gates,
    *,
    seed: int,
    runtime: Runtime,
    with_clean_clip: bool = True,
) -> None:
    """Claim what UBT does to a checkerboard, and what it does without poison.

    Args:
        claims: Where the claims go.
        mini: The miniature.
        gates: What it must show.
        seed: Seeds everything; part of the claims' names.
        runtime: Where and how to run.
        with_clean_clip: Whether to run CleanCLIP beside it.
    """
    reference = train_reference(mini, seed=seed, runtime=runtime)
    attack = checkerboard(mini, count=gates.planted)
    drill = train_victim(mini, reference, attack, seed=seed, runtime=runtime)
    told = Told(claims, drill, f"{mini.name}_{seed}", runtime)
    before = told.measure("victim", drill.victim)
    floor = told.measure("reference", drill.reference).attack_success_rate or 0.0
    told.at_least("victim_accuracy", before.clean_accuracy, gates.victim_accuracy)
    told.at_least("victim_success", success(before), gates.victim_success)
    begin = time.perf_counter()
    repair = mini.method.repair(
        drill.victim,
        data=drill.data,
        reference=drill.reference,
        seed=seed,
        runtime=runtime,
    )
    seconds = time.perf_counter() - begin
    after = told.measure("ubt", repair.model, seconds=seconds)
    told.found(repair, gates)
    most = gates.success + (floor if gates.above_floor else 0.0)
    told.at_most("success", success(after), round(most, 4))
    lost = before.clean_accuracy - after.clean_accuracy
    told.at_most("accuracy_loss", lost, gates.accuracy_loss)
    assert before.target_class_accuracy is not None
    assert after.target_class_accuracy is not None
    own = before.target_class_accuracy - after.target_class_accuracy
    told.at_most("target_accuracy_loss", own, gates.target_loss)
    _controls(told, drill, repair, gates, seed=seed, runtime=runtime)
    if with_clean_clip:
        _clean_clip(told, drill, success(after), seconds, seed=seed, runtime=runtime)
    _null(told, reference, seed=seed, runtime=runtime)


def success(found: Evaluation) -> float:
    """Return the attack success of an evaluation that has one.

    Args:
        found: The evaluation.

    Returns:
        The rate.
    """
    assert found.attack_success_rate is not None
    return found.attack_success_rate


@dataclass(kw_only=False)
class Told:
    """Claims under a common name, and a table of what was measured.

    Attributes:
        claims: Where they go.
        drill: What is measured.
        name: Put before every claim.
        runtime: Where and how to run.
    """

    claims: Claims
    drill: Drill
    name: str
    runtime: Runtime

    def measure(
        self, what: str, model: torch.nn.Module, *, seconds: float | None = None
    ) -> Evaluation:
        """Measure a model and add it to the table.

        Args:
            what: Its name in the table.
            model: A dual encoder.
            seconds: What it took to make it.

        Returns:
            The evaluation.
        """
        found = self.drill.measure(model, runtime=self.runtime)
        table = self.claims.facts.setdefault(self.name, {})
        assert isinstance(table, dict)
        row = {
            "accuracy": found.clean_accuracy,
            "success": success(found),
            "target_accuracy": found.target_class_accuracy,
            "floor": found.clean_target_rate,
        }
        table[what] = {k: round(v, 4) for k, v in row.items() if v is not None}
        if seconds is not None:
            table[what]["seconds"] = round(seconds, 1)
        return found

    def at_least(self, what: str, value: float, gate: float) -> None:
        """Claim that a number reaches a gate."""
        self.claims.at_least(f"{self.name}_{what}", value, gate)

    def at_most(self, what: str, value: float, gate: float) -> None:
        """Claim that a number stays below a gate."""
        self.claims.at_most(f"{self.name}_{what}", value, gate)

    def found(self, repair: Repair, gates: Gates) -> None:
        """Claim the word and the pairs that a repair found."""
        passed = [row for row in repair.tables["words"] if row["passes"]]
        longest = max((row["top"] for row in passed), default=0)  # type: ignore[type-var]
        lead = next((str(r["word"]) for r in passed if r["top"] == longest), None)
        self.claims.equal(f"{self.name}_word", lead, self.drill.mini.target_name)
        ids, is_poison = self.drill.data.ids, self.drill.is_poison
        isolated = repair.chosen("isolated", ids)
        precision = purity(isolated, is_poison) if isolated.any() else 0.0
        self.at_least("precision", precision, gates.precision)
        suspicious = repair.chosen("suspicious", ids)
        table = self.claims.facts[self.name]
        assert isinstance(table, dict)
        table["found"] = {
            "isolated": int(isolated.sum()),
            "of_which_poison": int((isolated & is_poison).sum()),
            "expected_false_alarms": round(repair.figures["expected_false_alarms"], 1),
            "poison_among_suspicious": int((suspicious & is_poison).sum()),
            "stages": {k: round(v, 1) for k, v in repair.seconds.items()},
            "stop": repair.stop_reason,
            "steps": repair.history[-1]["step"],
        }


def _controls(
    told: Told,
    drill: Drill,
    repair: Repair,
    gates: Gates,
    *,
    seed: int,
    runtime: Runtime,
) -> None:
    """Claim that the backdoor does not go without the forgetting of these pairs."""
    ids, settings = drill.data.ids, drill.mini.method.forgetting
    place = {name: row for row, name in enumerate(ids)}
    normal = torch.tensor([place[i] for i in repair.image_ids["trusted"]])
    count = len(repair.image_ids["isolated"])
    order = torch.randperm(len(ids), generator=generator(seed, "control"))[:count]
    captions = [drill.data.captions[row] for row in order.tolist()]
    forget = ToForget(
        rows=order,
        texts=[(caption,) for caption in captions],
        held_out=order,
        held_out_texts=captions,
    )

    def control(what: str, chosen: Forgetting) -> None:
        done = unlearn(
            drill.victim,
            data=drill.data,
            forget=forget,
            normal=normal,
            margin=repair.figures["margin"],
            settings=chosen,
            keep="last",
            seed=seed,
            runtime=runtime,
        )
        found = told.measure(what, done.model)
        told.at_least(f"{what}_success", success(found), gates.control_success)

    control("keep_only", replace(settings, forget_weight=0.0))
    control("random_pairs", settings)
    tuning = PairFineTuning(epochs=8, lr=settings.lr, warmup_steps=0)
    clean = drill.mini.clean.take(torch.arange(500))
    tuned = tuning.repair(drill.victim, data=clean, seed=seed, runtime=runtime)
    found = told.measure("fine_tuning", tuned.model)
    told.at_least("fine_tuning_success", success(found), gates.tuned_success)


def _clean_clip(
    told: Told,
    drill: Drill,
    reached: float,
    seconds: float,
    *,
    seed: int,
    runtime: Runtime,
) -> None:
    """Claim that UBT takes less time than CleanCLIP and leaves no more."""
    begin = time.perf_counter()
    done = CleanCLIP.mini().repair(
        drill.victim, data=drill.mini.clean, seed=seed, runtime=runtime
    )
    spent = time.perf_counter() - begin
    found = told.measure("clean_clip", done.model, seconds=spent)
    told.at_least("times_cheaper_than_clean_clip", spent / seconds, 2.0)
    told.at_most("success_beside_clean_clip", reached, round(success(found), 4))


def _null(told: Told, reference: DualEncoder, *, seed: int, runtime: Runtime) -> None:
    """Claim that nothing is found in a victim that was not poisoned."""
    mini = told.drill.mini
    drill = train_victim(mini, reference, None, seed=seed, runtime=runtime)
    before = fingerprint(drill.victim)
    repair = mini.method.repair(
        drill.victim,
        data=drill.data,
        reference=drill.reference,
        seed=seed,
        runtime=runtime,
    )
    told.claims.equal(f"{told.name}_clean_status", repair.status, "nothing found")
    told.claims.equal(f"{told.name}_clean_weights", fingerprint(repair.model), before)
    words = [row for row in repair.tables["words"]]
    best = max(words, key=lambda row: row["share"])  # type: ignore[arg-type,return-value]
    table = told.claims.facts[told.name]
    assert isinstance(table, dict)
    table["clean_lead"] = {
        k: round(v, 3) if isinstance(v, float) else v for k, v in best.items()
    }
