"""What ``bezoar repair`` prints: a card of before and after."""

from __future__ import annotations

from collections.abc import Mapping

from bezoar.catalog import ENCODER_REPAIRS
from bezoar.cli.mending import Mended
from bezoar.cli.runs import told_in
from bezoar.cli.text import facts, percent, shown, table
from bezoar.results import Evaluation

_FILES = {
    "model.safetensors": "the repaired model",
    "model.json": "what its weights belong to",
    "clip.json": "its sizes and words",
    "encoder.safetensors": "the repaired encoder",
    "encoder.json": "its sizes",
    "preprocessor_config.json": "how it normalises images",
    "config.json": "what transformers opens it by",
    "report.html": "the page to look at: open it in a browser",
    "report.json": "the history, and how it came about",
    "images.parquet": "which images were unlearnt, trusted and held out",
    "run.json": "settings, versions and fingerprints",
}
_MEASURED = {
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success rate",
    "target_class_accuracy": "target class accuracy",
    "clean_target_rate": "floor: target without trigger",
}
_HISTORY = {
    "suspicious_confidence": "confidence in suspicious labels",
    "held_out_accuracy": "accuracy on trusted images held out",
    "held_out_target_accuracy": "the same in the accused class",
}


def repair_text(mended: Mended) -> str:
    """Return the summary that a person reads.

    Args:
        mended: What came of the repair.

    Returns:
        Some lines.
    """
    repair, task = mended.repair, mended.task
    rows = [
        ("status", f"{repair.status} ({repair.stop_reason})"),
        ("model", shown(task.spec)),
        *((f"images {k}", f"{len(v):,}") for k, v in repair.image_ids.items()),
        *(("health", text) for text in repair.health),
        *(("note", shown(text)) for text in mended.remarks),
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in mended.unreadable[:3]),
        *((name, percent(value)) for name, value in mended.truth.items()),
    ]
    parts = [repair.summary, facts(rows)]
    if card := _card(mended):
        parts.append(table(("", "before", "after"), card))
    if is_encoder := type(task.method) in ENCODER_REPAIRS.values():
        parts.append(facts(_encoder_rows(mended)))
    if mended.before is None and not is_encoder:
        parts.append(
            "Accuracy was not measured; give clean images as --test to see what the "
            "repair costs."
        )
    written = [(n, what) for n, what in _FILES.items() if (task.out / n).exists()]
    parts.append(facts((str(task.out / name), what) for name, what in written))
    return "\n\n".join(parts)


def _encoder_rows(mended: Mended) -> list[tuple[str, str]]:
    # The curves at both ends, for all that was followed; the row of epoch 0 is the
    # encoder beside itself.
    repair = mended.repair
    followed = [row for row in repair.history if row.get("epoch") != 0]
    curves = {
        name: [row[name] for row in followed if _is_number(row, name)]
        for row in followed
        for name in row
        if name != "epoch"
    }
    rows = [
        (name.replace("_", " "), f"{values[0]:.4g} -> {values[-1]:.4g}")
        for name, values in curves.items()
        if values and name not in repair.figures
    ]
    named = [
        (name.replace("_", " "), f"{value:.4f}")
        for name, value in repair.figures.items()
        if value == value
    ]
    return [*rows, *named]


def repair_json(mended: Mended) -> dict[str, object]:
    """Return what ``--json`` prints.

    Args:
        mended: What came of the repair.

    Returns:
        What ``report.json`` holds but for the page, and the files that were written.
    """
    out = mended.task.out
    files = [str(out / name) for name in _FILES if (out / name).exists()]
    return {**told_in(out), "out": str(out), "files": files}


def _card(mended: Mended) -> list[tuple[str, str, str]]:
    rows = []
    if mended.before is not None and mended.after is not None:
        rows += [
            (
                name,
                percent(_value(mended.before, key)),
                percent(_value(mended.after, key)),
            )
            for key, name in _MEASURED.items()
            if getattr(mended.before, key) is not None
        ]
    before, after = mended.repair.before, mended.repair.after
    return rows + [
        (name, percent(before[key]), percent(after[key]))
        for key, name in _HISTORY.items()
        if _is_number(before, key) and _is_number(after, key)
    ]


def _value(found: Evaluation, key: str) -> float:
    value: float = getattr(found, key)
    return value


def _is_number(row: Mapping[str, float], key: str) -> bool:
    return key in row and row[key] == row[key]
