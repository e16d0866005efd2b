"""The test of words: its statistics by hand, and a hundred rankings of chance."""

import pytest
import torch

from bezoar.errors import InputError
from bezoar.repair.ubt_isolate import isolate, name_words, to_forget
from bezoar.repair.ubt_words import (
    Vocabulary,
    WordTest,
    list_lengths,
    local_captions,
    log_odds,
    without,
)
from tests.repair.pairs import NAMES, pairs

TEST = WordTest(min_z=4.0, min_rate=0.5, min_drop=0.3, max_words=3)


def hangs_on(*words: str):  # type: ignore[no-untyped-def]
    return lambda word, _: 0.8 if word in words else 0.0


def captions(total: int, *, seed: int) -> list[str]:
    stream = torch.Generator().manual_seed(seed)
    picks = torch.randint(0, 10, (total,), generator=stream).tolist()
    return [f"a photo of {NAMES[i]} here" for i in picks]


def test_z_of_the_specification() -> None:
    # 48 of 336 words at the top, 472 of 27,664 others; p = 520 / 28,000, A = 500.
    top = torch.tensor([48.0, 288.0])
    rest = torch.tensor([472.0, 27192.0])
    assert log_odds(top, rest)[0].item() == pytest.approx(10.32, abs=0.005)


def test_equal_shares_have_no_z_and_rare_words_little() -> None:
    equal = log_odds(torch.tensor([10.0, 90.0]), torch.tensor([100.0, 900.0]))
    assert equal.abs().max().item() == pytest.approx(0, abs=1e-5)
    # Once at the top and nowhere else: the prior keeps it far from 4.
    once = log_odds(torch.tensor([1.0, 99.0, 0]), torch.tensor([0.0, 9900.0, 0]))
    assert once[0].item() < 2.5
    assert once[2].item() == 0


def test_shares_count_captions_and_z_counts_words() -> None:
    words = Vocabulary(["Dog dog!", "a cat", "a cat", "a dog"])
    assert words.words == ("a", "cat", "dog")
    shares, _ = words.scores(torch.tensor([0, 1]))
    assert shares.tolist() == [0.5, 0.5, 0.5]
    assert words.holds({"dog"}, torch.tensor([0, 1, 3])) == [True, False, True]


def test_a_planted_word_is_found_once_the_list_is_long_enough() -> None:
    texts = captions(3000, seed=0)
    for i in range(90):
        texts[i] = "a photo of seven here"
    found = name_words(
        torch.arange(400),
        vocabulary=Vocabulary(texts),
        test=TEST,
        drop=hangs_on("seven"),
    )
    assert found.words == ("seven",)
    assert found.top == 64  # the next list, of 128, is longer than a quarter
    by_top = {word.top: word for word in found.table if word.word == "seven"}
    assert by_top[16].z < 5 < by_top[32].z
    assert found.is_sure
    # The words of the template are in all captions and never stand out.
    assert not any(word.passes for word in found.table if word.word != "seven")


def test_a_word_that_the_model_does_not_hang_on_is_not_accused() -> None:
    texts = ["a photo of seven here"] * 100 + captions(2000, seed=1)
    found = name_words(
        torch.arange(300), vocabulary=Vocabulary(texts), test=TEST, drop=hangs_on()
    )
    assert found.words == ()
    assert found.top == 0


@pytest.mark.parametrize("num_seeds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_is_found_in_rankings_of_chance(num_seeds: int) -> None:
    """Whatever the model hangs on: scores are Gaussian, captions of ten classes."""
    for seed in range(num_seeds):
        if seed % 20 == 0:
            vocabulary = Vocabulary(captions(2000, seed=seed))
        stream = torch.Generator().manual_seed(1000 + seed)
        ranked = torch.randn(2000, generator=stream).argsort()[:600]
        found = name_words(
            ranked, vocabulary=vocabulary, test=TEST, drop=lambda *_: 1.0
        )
        assert found.words == (), seed


def test_isolated_pairs_hold_the_word_and_false_alarms_are_bounded() -> None:
    texts = ["a photo of seven here"] * 64 + captions(1000, seed=2)
    words = Vocabulary(texts)
    ranked = torch.arange(300)
    found = name_words(ranked, vocabulary=words, test=TEST, drop=hangs_on("seven"))
    got = isolate(ranked, accused=found, vocabulary=words, num_unlearn=70)
    assert got.num_walked == 2 * found.top == 128
    assert all("seven" in words.texts[row] for row in got.rows.tolist())
    assert got.rows[:64].equal(torch.arange(64))
    lower = [texts[row] for row in range(150, 300)]
    share = sum("seven" in text for text in lower) / 150
    assert got.expected_false_alarms == pytest.approx(128 * share)
    few = isolate(ranked, accused=found, vocabulary=words, num_unlearn=8)
    assert few.rows.tolist() == list(range(8))


def test_partial_captions_depend_on_seed_and_pair_alone() -> None:
    text = tuple(["a", "big", "red", "truck", "on", "a", "road"])

    def parts(pair_id: str, seed: int) -> tuple[str, ...]:
        return local_captions(
            text,
            {"truck"},
            pair_id=pair_id,
            num_partial=20,
            keep_word_rate=0.3,
            seed=seed,
        )

    assert parts("7", 0) == parts("7", 0)
    assert parts("7", 0) != parts("8", 0)
    assert parts("7", 0) != parts("7", 1)
    assert parts("7", 0)[0] == "truck"
    assert all("truck" in part.split() for part in parts("7", 0))
    kept = [len(part.split()) - 1 for part in parts("7", 0)[1:]]
    assert 0.15 < sum(kept) / (20 * 6) < 0.45


def test_what_is_forgotten_does_not_depend_on_the_order_of_the_pairs() -> None:
    data, _ = pairs(total=200)
    words = Vocabulary(data.captions)

    def texts(rows: torch.Tensor) -> dict[int, object]:
        found = to_forget(
            rows,
            data=data,
            words=("seven",),
            vocabulary=words,
            local_words=True,
            num_partial=3,
            keep_word_rate=0.3,
            normal=torch.arange(100, 200),
            seed=0,
        )
        assert found.strangers is not None
        told = [data.captions[row].split() for row in found.strangers.tolist()]
        assert told
        assert not any("seven" in caption for caption in told)
        return dict(zip(found.rows.tolist(), found.texts, strict=True))

    one, two = texts(torch.arange(30)), texts(torch.arange(29, -1, -1))
    assert all(one[row] == two[row] for row in one.keys() & two.keys())
    assert len(one) == 20  # a third is held out
    few = texts(torch.arange(10))
    assert len(few) == 10


def test_captions_without_an_accused_word_are_forgotten_whole() -> None:
    data, _ = pairs(total=200)
    found = to_forget(
        torch.arange(100, 110),
        data=data,
        words=(),
        vocabulary=Vocabulary(data.captions),
        local_words=False,
        num_partial=3,
        keep_word_rate=0.3,
        normal=torch.arange(50),
        seed=0,
    )
    told = [data.captions[row] for row in found.rows.tolist()]
    assert [text for (text,) in found.texts] == told
    assert found.held_out.equal(found.rows)


def test_lists_end_at_a_quarter_of_the_suspicious_pairs() -> None:
    assert list_lengths(64) == [16]
    assert list_lengths(450) == [16, 32, 64]
    assert list_lengths(512) == [16, 32, 64, 128]
    with pytest.raises(InputError, match="at least 64 suspicious pairs"):
        list_lengths(63)


def test_a_word_is_taken_out_wherever_it_stands() -> None:
    assert without(("a", "cat", "a", "catalogue"), "a") == "cat catalogue"
    assert without(("dog",), "dog") == ""
