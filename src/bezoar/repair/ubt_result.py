"""What UBT found and did, as a detection of pairs and a repair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bezoar.repair.account import Evaluate, measured
from bezoar.repair.ubt_forget import Forgotten
from bezoar.repair.ubt_isolate import Isolation
from bezoar.repair.ubt_loss import ToForget
from bezoar.repair.ubt_prior import Prior
from bezoar.repair.ubt_stages import Case, Ranking
from bezoar.results import Detection, Provenance, Repair, Verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What the first three stages found.

    Attributes:
        case: The suspect model and its pairs.
        prior: Which pairs are suspicious.
        ranking: Their order, and the words.
        isolation: The pairs to forget.
    """

    case: Case
    prior: Prior
    ranking: Ranking
    isolation: Isolation


def nothing_found(
    findings: Findings, *, evaluate: Evaluate | None, provenance: Provenance
) -> Repair:
    """Return the model as it is, for no word passed the test.

    Args:
        findings: What was found.
        evaluate: The caller's own measure, or None.
        provenance: How the result came about.

    Returns:
        A result with "nothing found" and the very same model.
    """
    model = findings.case.model
    return Repair(
        model=model,
        status="nothing found",
        summary="No word stands out among the suspicious pairs, so there is nothing to "
        "forget; the model is unchanged. Poison whose captions are true, and an "
        "optimised trigger, would not be seen.",
        stop_reason="no word passed the test",
        history=({"step": 0.0, **measured(evaluate, model)},),
        image_ids=_sets(findings, None),
        provenance=provenance,
        detection=as_detection(findings, provenance=provenance),
        figures=_figures(findings),
        tables=_tables(findings),
        seconds=dict(findings.case.seconds),
    )


def repaired(
    findings: Findings, *, forget: ToForget, done: Forgotten, provenance: Provenance
) -> Repair:
    """Return the model that was made to forget.

    Args:
        findings: What was found.
        forget: What was to be forgotten.
        done: What came of it.
        provenance: How the result came about.

    Returns:
        The result.
    """
    before, after = done.history[0], done.history[done.kept]
    words = " and ".join(map(repr, findings.ranking.accused.words)) or "whole captions"
    count = len(findings.isolation.rows)
    summary = (
        f"{count} pairs were isolated; their images were as near to {words} as "
        f"{before['similarity']:.2f} and now are as near as {after['similarity']:.2f} "
        f"(strangers: {done.floor:.2f}). This is a suspicion, not proof: "
        "look at the pairs"
    )
    if done.kept == 0:
        summary += "; no later state was better, so the model is unchanged"
    elif not done.reached:
        summary += f"; the link is not cut, which would be {done.aim:.2f}"
    figures = {
        "similarity_before": before["similarity"],
        "similarity_after": after["similarity"],
        "similarity_of_strangers": done.floor,
        "keep_loss_before": before["keep_loss"],
        "keep_loss_after": after["keep_loss"],
    }
    return Repair(
        model=done.model,
        status="repaired" if done.reached else "stopped",
        summary=summary + ".",
        stop_reason=done.stop_reason,
        history=done.history,
        kept=done.kept,
        image_ids=_sets(findings, forget),
        provenance=provenance,
        health=_health(findings),
        detection=as_detection(findings, provenance=provenance),
        figures=_figures(findings) | figures,
        tables=_tables(findings),
        seconds=dict(findings.case.seconds),
    )


def as_detection(findings: Findings, *, provenance: Provenance) -> Detection:
    """Return what was found as a detection, one row per pair.

    Args:
        findings: What was found.
        provenance: How it came about.

    Returns:
        The isolated pairs are flagged; p-values there are none, for there is no honest
        null.
    """
    data, isolation = findings.case.data, findings.isolation
    ranking, prior = findings.ranking, findings.prior
    rows, words = isolation.rows.tolist(), ranking.accused.words
    flagged = torch.zeros(len(data), dtype=torch.bool)
    flagged[isolation.rows] = True
    suspicious = torch.zeros(len(data))
    suspicious[prior.suspicious] = 1.0
    columns = {"suspicious": suspicious, "isolated": flagged.float()}
    if prior.similarity_reference is not None and prior.similarity_model is not None:
        columns["similarity_reference"] = prior.similarity_reference
        columns["similarity_model"] = prior.similarity_model
    if ranking.overfitted is not None:
        columns["similarity_overfit"] = torch.full((len(data),), math.nan)
        columns["similarity_overfit"][prior.suspicious] = ranking.overfitted.similarity
    reasons = [""] * len(data)
    for row in rows:
        named = [w for w in words if w in findings.case.vocabulary.texts[row]]
        told = "caption names " + " and ".join(map(repr, named)) if named else "ranks"
        reasons[row] = (
            f"{told} and the reference disagrees"
            if prior.similarity_reference is not None
            else f"{told} and the score is high"
        )
    return Detection(
        ids=data.ids,
        labels=data.labels,
        class_names=data.class_names,
        scores=ranking.scores,
        p_values=None,
        flagged=flagged,
        reasons=tuple(reasons),
        columns=columns,
        verdict=_verdict(findings, words),
        provenance=provenance,
    )


def _verdict(findings: Findings, words: tuple[str, ...]) -> Verdict:
    names, isolation = findings.case.data.class_names, findings.isolation
    count = len(isolation.rows)
    lead = words[0] if words else ""
    if count:
        what = f"name {lead!r}" if lead else "rank first"
        summary = (
            f"{count} of {len(findings.case.data)} pairs look planted: they {what}. "
            f"Expect up to {isolation.expected_false_alarms:.0f} to be innocent."
        )
    else:
        summary = f"Nothing found in {len(findings.case.data)} pairs."
    return Verdict(
        status="found" if count else "nothing found",
        rule="words",
        summary=summary,
        num_flagged=count,
        expected_false_alarms=min(float(count), isolation.expected_false_alarms),
        target_class=names.index(lead) if lead in names else None,
    )


def _figures(findings: Findings) -> dict[str, float]:
    ranking, isolation = findings.ranking, findings.isolation
    figures = {
        "margin": ranking.margin,
        "num_suspicious": float(len(findings.prior.suspicious)),
        "num_isolated": float(len(isolation.rows)),
        "ranks_walked": float(isolation.num_walked),
        "expected_false_alarms": isolation.expected_false_alarms,
    }
    if ranking.overfitted is not None:
        figures["overfit_steps"] = float(ranking.overfitted.steps)
        figures["overfit_similarity"] = ranking.overfitted.curve[-1]
    return figures


def _tables(findings: Findings) -> dict[str, tuple[Mapping[str, object], ...]]:
    return {"words": tuple(word.row() for word in findings.ranking.accused.table)}


def _sets(findings: Findings, forget: ToForget | None) -> dict[str, tuple[str, ...]]:
    ids = findings.case.data.ids
    sets = {
        "suspicious": findings.prior.suspicious,
        "trusted": findings.prior.normal,
        "isolated": findings.isolation.rows,
    }
    if forget is not None:
        sets |= {"unlearnt": forget.rows, "held_out": forget.held_out}
    return {name: tuple(ids[i] for i in rows.tolist()) for name, rows in sets.items()}


def _health(findings: Findings) -> tuple[str, ...]:
    isolation, told = findings.isolation, []
    count, innocent = len(isolation.rows), isolation.expected_false_alarms
    if innocent > count / 2:
        told.append(
            f"up to {innocent:.0f} of {count} isolated pairs may be innocent: the word "
            "is common among pairs that do not look suspicious as well"
        )
    if words := findings.ranking.accused.words:
        told.append(
            f"true images of {words[0]!r} may have become harder to recognise: measure "
            "the accuracy on that class"
        )
    return tuple(told)
