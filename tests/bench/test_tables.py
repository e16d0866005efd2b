from dataclasses import replace

import pytest

from bezoar.bench.records import Claim, Machine, RecipeRun, Record
from bezoar.bench.tables import EMPTY, fill, table
from bezoar.errors import InputError

SMALL = Machine(cpu="One", cores=2, features=(), memory_gib=8)
LARGE = Machine(cpu="Two", cores=16, features=(), memory_gib=64, gpu="Fast")
SPEED = Record(
    what="scoring",
    before=5.8,
    after=1234.5,
    unit="images/s",
    ratio=212.0,
    n=5,
    mean=212.04,
    spread=3.14159,
    warmup=1,
    equality="bound 1e-4 | test_fast",
    machine=SMALL,
    versions={"torch": "2.13.0"},
    commit="abc",
)
RUN = RecipeRun(
    recipe="mini",
    seconds=10.0,
    claims=(Claim(name="auroc", value=0.9712, gate=">= 0.95", passed=True),),
    machine=SMALL,
    versions={"torch": "2.13.0"},
    commit="abc",
)


def test_a_comparison_is_one_row_with_its_machine_below() -> None:
    assert table([SPEED]).splitlines()[2:] == [
        "| scoring | 5.8 images/s | 1,234 images/s | 212 ± 3.14 | 5 "
        "| bound 1e-4 \\| test_fast | abc |",
        "",
        "Measured on 2 cores of One, 8 GiB; torch 2.13.0.",
    ]


def test_a_recipe_is_one_row_per_claim() -> None:
    missed = Claim(name="target class", value=None, gate="= 0", passed=False)
    rows = table([replace(RUN, claims=(*RUN.claims, missed))]).splitlines()
    assert rows[2:4] == [
        "| mini | auroc | 0.971 | >= 0.95 | yes | abc |",
        "| mini | target class | none | = 0 | no | abc |",
    ]


def test_a_recipe_in_brief_is_one_row() -> None:
    missed = Claim(name="target_class", value=3, gate="= 0", passed=False)
    exact = Claim(name="verdict", value="found", gate="= found", passed=True)
    told = Claim(name="seconds", value=9, gate="reported", passed=True)  # no claim
    run = replace(RUN, claims=(*RUN.claims, missed, exact, told))
    assert table([run], brief=True).splitlines()[2] == (
        "| mini | 2 of 3 | auroc 0.971 (>= 0.95); target class 3 (= 0); verdict found "
        "| abc |"
    )
    wished = Claim(name="b", value=2, gate="wanted <= 1: missed", passed=True)
    wanting = replace(RUN, claims=(exact, wished))
    assert "| mini | 1 of 2 |" in table([wanting], brief=True)
    assert "| b | 2 | wanted <= 1: missed | no |" in table([wanting])
    page = "<!-- records:runs/mini:brief -->\n<!-- /records -->"
    assert "| mini | 2 of 3 |" in fill(page, lambda _: [run])


def test_the_newest_of_a_name_and_machine_counts() -> None:
    newer, elsewhere = replace(SPEED, commit="def"), replace(SPEED, machine=LARGE)
    text = table([SPEED, elsewhere, newer])
    assert text.count("| scoring |") == 2
    assert "| def |" in text
    assert "16 cores of Two, 64 GiB, Fast; torch 2.13.0." in text


def test_of_a_recipe_the_newest_counts_wherever_it_ran() -> None:
    text = table([RUN, replace(RUN, machine=LARGE, commit="def")])
    assert "def" in text
    assert f"| {RUN.commit} |" not in text
    assert text.count("Measured on") == 1


def test_a_page_keeps_all_that_is_outside_the_marks() -> None:
    page = "a\n<!-- records:x -->\nold\n<!-- /records -->\nb\n"
    filled = fill(page, lambda name: [RUN] if name == "x" else [])
    assert filled == f"a\n<!-- records:x -->\n{table([RUN])}\n<!-- /records -->\nb\n"
    assert fill(filled, lambda _: [RUN]) == filled


def test_a_name_after_the_stroke_chooses() -> None:
    other = replace(RUN, recipe="other")
    for only, wanted in {"x/mini": [RUN], "x/oth": [other], "x": [RUN, other]}.items():
        page = f"<!-- records:{only} -->\n<!-- /records -->"
        assert table(wanted) in fill(page, lambda _: [RUN, other])


def test_without_records_the_table_says_so() -> None:
    assert table([]) == EMPTY


@pytest.mark.parametrize(
    "page",
    [
        "<!-- records:x -->\nold\n",
        "<!-- records:x --> <!-- /records -->",
        "<!-- records:x -->\n<!-- records:y -->\n<!-- /records -->",
    ],
)
def test_an_open_mark_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="close them"):
        fill(page, lambda _: [])


def test_a_name_takes_what_begins_so_only_where_none_is_called_so() -> None:
    other = replace(RUN, recipe="mini_two", commit="two")
    page = "<!-- records:runs/mini -->\n<!-- /records -->"
    assert "| two |" not in fill(page, lambda _: [RUN, other])
    assert "| two |" in fill(page, lambda _: [other])
