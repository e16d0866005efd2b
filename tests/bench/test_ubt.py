"""The fast parts of UBT against plain loops that share no code with them."""

import pytest
import torch

from bezoar.bench.reference.ubt import (
    contrast_plain,
    forget_plain,
    isolate_plain,
    z_plain,
)
from bezoar.data import digit_pairs, digit_prompts
from bezoar.metrics import similarities
from bezoar.models import TinyClip, WordTokenizer
from bezoar.repair.ubt_loss import forget_loss
from bezoar.repair.ubt_texts import Pairs
from bezoar.repair.ubt_words import Vocabulary
from bezoar.runtime import Runtime
from bezoar.train import clip_loss

DATA = digit_pairs("victim", num_pairs=80)
WORDS = WordTokenizer.from_captions([t for own in digit_prompts() for t in own])
MODEL = TinyClip(WORDS, resolution=24, seed=3).eval().requires_grad_(False)


def test_scores_are_those_of_one_pair_at_a_time() -> None:
    runtime = Runtime(dtype=torch.float32, batch_size=32)
    table = torch.from_numpy(isolate_plain(MODEL, DATA))
    assert table[:, 0].tolist() == list(range(80))
    # Sums of 64 products in another order: a few units in the last place.
    torch.testing.assert_close(
        similarities(MODEL, DATA, runtime=runtime),
        table[:, 1].float(),
        atol=1e-5,
        rtol=0,
    )


def test_half_precision_keeps_the_order_of_scores() -> None:
    """A cosine has an error of about 2^-8; ranks of far pairs do not change."""
    full = similarities(MODEL, DATA, runtime=Runtime(dtype=torch.float32))
    half = similarities(MODEL, DATA, runtime=Runtime(dtype=torch.bfloat16))
    assert (full - half).abs().max().item() < 0.02


def test_z_is_that_of_plain_counts() -> None:
    words = Vocabulary(DATA.captions)
    rows = torch.arange(0, 80, 5)
    _, z = words.scores(rows)
    top = [words.texts[row] for row in rows.tolist()]
    rest = [words.texts[row] for row in range(80) if row % 5]
    for place, word in enumerate(words.words):
        assert z[place].item() == pytest.approx(z_plain(top, rest, word), abs=1e-4)


def test_losses_are_those_of_plain_loops() -> None:
    texts = [("seven", "a seven"), ("black seven", "seven"), ("one", "two white")]
    rows = torch.arange(3)
    part = Pairs(MODEL, DATA, rows, cached=True, texts=texts)
    fast = forget_loss(
        part.seen(rows),
        part.texts.vectors(rows),
        margin=-0.1,
        log_scale=MODEL.log_scale,
    )
    slow = forget_plain(MODEL, DATA.images[:3].float() / 255, texts, margin=-0.1)
    assert slow > 0
    assert fast.item() == pytest.approx(slow, abs=1e-6)
    live = Pairs(MODEL, DATA, rows, cached=False, texts=texts)
    torch.testing.assert_close(live.texts.vectors(rows), part.texts.vectors(rows))
    seen, told = part.seen(rows), part.texts.vectors(rows)[:, 0]
    scale = MODEL.log_scale.exp().item()
    assert clip_loss(seen, told, log_scale=MODEL.log_scale).item() == pytest.approx(
        contrast_plain(seen, told, scale=scale), abs=1e-4
    )
