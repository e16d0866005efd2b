"""The small image-text model, its tokenizer and the encoding of many texts."""

from itertools import pairwise

import pytest
import torch

from bezoar.errors import InputError, ModelError
from bezoar.models import (
    TinyClip,
    WordTokenizer,
    embed_captions,
    embed_images,
    pair_similarities,
)

CAPTIONS = ["a red dog", "a dog", "one small, red house on a hill", "a dog"]
WORDS = WordTokenizer.from_captions(CAPTIONS)


def test_padding_changes_no_text() -> None:
    model = TinyClip(WORDS, resolution=24).eval()
    ids = model.tokenize(CAPTIONS)
    assert ids.shape == (4, 9)
    wide = torch.zeros(4, 16, dtype=torch.int64)
    wide[:, :9] = ids
    short = model.encode_texts(model.tokenize(CAPTIONS[1:2]))
    torch.testing.assert_close(
        model.encode_texts(ids), model.encode_texts(wide), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(model.encode_texts(ids)[1:2], short, atol=1e-5, rtol=0)


def test_a_text_cut_off_still_ends() -> None:
    words = WordTokenizer.from_captions(CAPTIONS, context_length=5)
    ids = words(CAPTIONS)
    assert ids.shape == (4, 5)
    assert (ids == words.end).sum(1).tolist() == [1] * 4
    assert ids[2].tolist()[1:4] == WORDS(["one small red"])[0].tolist()[1:4]


def test_repeated_captions_are_encoded_once() -> None:
    model = TinyClip(WORDS, resolution=24).eval()
    shown: list[int] = []
    model.ln_final.register_forward_hook(lambda _m, i, _o: shown.append(len(i[0])))
    vectors = embed_captions(model, CAPTIONS * 5, batch_size=2)
    assert shown == [2, 1]
    plain = torch.cat([model.encode_texts(model.tokenize([c])) for c in CAPTIONS])
    torch.testing.assert_close(vectors[4:8], plain, atol=1e-5, rtol=0)


def test_vectors_are_unit_and_cosines_are_theirs() -> None:
    model = TinyClip(WORDS, resolution=32, seed=1).eval()
    images = torch.randint(0, 256, (4, 3, 32, 32)).to(torch.uint8)
    seen, told = (
        embed_images(model, images, batch_size=3),
        embed_captions(model, CAPTIONS),
    )
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(4))
    expected = torch.stack([v @ t for v, t in zip(seen, told, strict=True)])
    torch.testing.assert_close(pair_similarities(model, images, CAPTIONS), expected)


def test_images_of_another_size_are_fitted() -> None:
    model = TinyClip(WORDS, resolution=24).eval()
    flat = torch.full((1, 3, 24, 24), 0.4)
    torch.testing.assert_close(
        model.encode_images(torch.full((1, 3, 50, 30), 0.4)),
        model.encode_images(flat),
        atol=1e-4,
        rtol=0,
    )


def test_weights_follow_the_seed_and_leave_the_global_state() -> None:
    before = torch.get_rng_state()
    one, same, other = (TinyClip(WORDS, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert all(one[k].equal(same[k]) for k in one)
    assert all(bool(v.isfinite().all()) for v in one.values())
    told = ("visual.mean", "visual.std")
    drawn = [k for k, v in one.items() if v.ndim > 1 and k not in told]
    assert all(not one[k].equal(other[k]) for k in drawn)


def test_the_image_tower_is_told_apart() -> None:
    model = TinyClip(WORDS, resolution=24)
    own = {id(p) for p in model.image_parameters()}
    names = {n for n, p in model.named_parameters() if id(p) in own}
    assert names == {n for n, _ in model.named_parameters() if n.startswith("visual.")}
    assert model.log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_the_vocabulary_does_not_depend_on_order_and_keeps_the_frequent() -> None:
    assert WordTokenizer.from_captions(CAPTIONS[::-1]) == WORDS
    assert WordTokenizer.from_captions(CAPTIONS, max_words=2).words == ("a", "dog")
    assert all(a < b for a, b in pairwise(WORDS.words))


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ModelError, match="24 or 32"):
        TinyClip(WORDS, resolution=28)
    with pytest.raises(InputError, match="at least one"):
        WordTokenizer.from_captions(["!"])
    with pytest.raises(InputError, match="at least 3"):
        WordTokenizer(words=("a",), context_length=2)
