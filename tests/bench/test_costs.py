"""Costs are images by rate, and nothing that was not measured."""

from dataclasses import replace
from pathlib import Path

from bezoar.bench.costs import cost_table, fill_costs
from bezoar.bench.records import Record, read
from bezoar.bench.tables import EMPTY

ROOT = Path(__file__).parents[2]


def measured(rate: float, **changes: str) -> Record:
    record = read(ROOT / "docs" / "records" / "bench.jsonl")[0]
    assert isinstance(record, Record)
    given = {"what": "a method", "unit": "images/s", **changes}
    return replace(record, after=rate, **given)  # type: ignore[arg-type]


def test_hours_are_images_by_rate() -> None:
    table = cost_table([measured(5.0), measured(10.0)], num_images=720_000, num_gpus=4)
    (row,) = table.splitlines()[2:]
    assert row.endswith("| 10 | 20 | 5 / g |")  # the newest; 720,000 / 10 / 3600
    assert "hours for 720,000 there | hours on 4 GPUs" in table


def test_only_passes_over_images_count() -> None:
    others = [measured(1.0, unit="s"), measured(1.0, what="a training step")]
    assert cost_table(others) == EMPTY
    assert cost_table([]) == EMPTY


def test_a_page_keeps_what_is_around_the_table() -> None:
    page = "a\n<!-- costs:bench -->\nold\n<!-- /costs -->\nb"
    filled = fill_costs(page, lambda name: [measured(10.0)] if name == "bench" else [])
    assert filled.startswith("a\n<!-- costs:bench -->\n| method |")
    assert filled.endswith("\n<!-- /costs -->\nb")
    assert fill_costs("no table", lambda _: []) == "no table"
