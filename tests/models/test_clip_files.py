"""Image-text models on disk, and those of other libraries."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models import (
    ClipResNet,
    DualEncoder,
    TinyClip,
    TransformersClip,
    WordTokenizer,
    is_dual_encoder,
    load_dual_encoder,
    save_dual_encoder,
)
from tests.models.test_clip_resnet import SMALL, small

CAPTIONS = ["a red dog", "a dog", "one small, red house on a hill"]
WORDS = WordTokenizer.from_captions(CAPTIONS)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vectors(model: DualEncoder) -> Tensor:
    with torch.no_grad():
        texts = model.encode_texts(model.tokenize(CAPTIONS))
        return torch.cat([model.eval().encode_images(IMAGES), texts])


@pytest.mark.parametrize("model", [TinyClip(WORDS), small(layers=(1, 1, 1, 1))])
def test_ours_come_back_as_they_were(
    model: TinyClip | ClipResNet, tmp_path: Path
) -> None:
    save_dual_encoder(model, tmp_path / "m")
    assert is_dual_encoder(str(tmp_path / "m"))
    loaded = load_dual_encoder(str(tmp_path / "m"))
    assert type(loaded) is type(model)
    assert not loaded.training
    assert vectors(loaded).equal(vectors(model))
    (tmp_path / "m" / "clip.json").unlink()
    assert not is_dual_encoder(str(tmp_path / "m"))


def test_other_weights_or_sizes_are_refused(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_dual_encoder(TinyClip(WORDS, seed=seed), tmp_path / name)
    shutil.copy(tmp_path / "b/model.safetensors", tmp_path / "a/model.safetensors")
    with pytest.raises(ModelError, match="restore the pair"):
        load_dual_encoder(str(tmp_path / "a"))
    path = tmp_path / "b/clip.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "model": "vit"}))
    with pytest.raises(ModelError, match="sizes and words"):
        load_dual_encoder(str(tmp_path / "b"))


def hub_clip(folder: Path, **text: object) -> Any:
    """A tiny model of transformers, saved with a tokenizer of letters."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = [chr(c) for c in range(97, 123)]
    tokens = ["!", ",", ",</w>", *letters, *(f"{c}</w>" for c in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[])
    towers = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "projection_dim": 16,
        "num_hidden_layers": 2,
    }
    ends = {"eos_token_id": len(tokens) - 1, "bos_token_id": len(tokens) - 2}
    config = CLIPConfig(
        text_config={
            **towers,
            **ends,
            "vocab_size": len(tokens),
            "max_position_embeddings": 16,
            "pad_token_id": len(tokens) - 1,
            **text,
        },
        vision_config={**towers, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = CLIPModel(config)
        model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_a_model_of_transformers_computes_as_it_does_there(tmp_path: Path) -> None:
    plain = hub_clip(tmp_path)
    assert is_dual_encoder(str(tmp_path))
    model = load_dual_encoder(str(tmp_path))
    assert isinstance(model, TransformersClip)
    assert (model.resolution, model.context_length) == (32, 16)
    ids = model.tokenize(CAPTIONS[:2])
    shown = (IMAGES - model.mean) / model.std
    expected = plain(
        input_ids=ids, pixel_values=shown, attention_mask=_mask(ids, plain)
    )
    cosines = model.encode_texts(ids) @ model.encode_images(IMAGES).T
    want = expected.logits_per_text / plain.logit_scale.exp()
    torch.testing.assert_close(cosines, want, atol=1e-4, rtol=0)
    own = {id(p) for p in model.image_parameters()}
    names = [n for n, p in model.named_parameters() if id(p) in own]
    assert {n.split(".")[1] for n in names} == {"vision_model", "visual_projection"}


def _mask(ids: Tensor, model: Any) -> Tensor:
    # up to the first end; as a bool, for a tower that inverts it: ~1 is -2
    end = ids == model.config.text_config.eos_token_id
    before: Tensor = (end.cumsum(1) - end.int()) == 0
    return before


def test_a_cut_off_text_still_ends_and_padding_changes_nothing(tmp_path: Path) -> None:
    hub_clip(tmp_path)
    model = load_dual_encoder(str(tmp_path))
    assert isinstance(model, TransformersClip)
    long = "abcdefghij klmnopqrst uvwxyz"
    ids = model.tokenize([long, "a dog"])
    end = model.tokenizer.eos_token_id
    assert ids.shape == (2, 16)
    assert ids[0, -1] == end
    assert int((ids[0] == end).sum()) == 1
    alone = model.tokenize(["a dog"])
    assert alone.shape[1] < 16
    torch.testing.assert_close(
        model.encode_texts(ids)[1:], model.encode_texts(alone), atol=1e-5, rtol=0
    )

    def endless(*_: object, **__: object) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([[1, 2, 3], [1, end, end]])}

    endless.eos_token_id = end  # type: ignore[attr-defined]
    model.tokenizer = endless
    assert model.tokenize(["x", "y"]).tolist() == [[1, 2, end], [1, end, end]]


def test_a_repaired_model_goes_back_to_transformers(tmp_path: Path) -> None:
    from transformers import CLIPModel

    hub_clip(tmp_path / "a")
    (tmp_path / "a/preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3})
    )
    model = load_dual_encoder(str(tmp_path / "a"))
    assert isinstance(model, TransformersClip)
    torch.testing.assert_close(model.mean.flatten(), torch.tensor([0.1] * 3))
    with torch.no_grad():
        model.image_parameters()[0].add_(1)
    save_dual_encoder(model, tmp_path / "b")
    again = load_dual_encoder(str(tmp_path / "b"))
    assert vectors(again).equal(vectors(model))
    there = CLIPModel.from_pretrained(tmp_path / "b").state_dict()
    for name, value in model.state_dict().items():
        assert value.equal(there[name.removeprefix("model.")])


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    hub_clip(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(ModelError, match="tokenizer with the model's 57 ids, got one"):
        load_dual_encoder(str(tmp_path))


def test_a_tokenizer_with_another_end_is_told(tmp_path: Path) -> None:
    hub_clip(tmp_path, eos_token_id=5)
    with pytest.raises(ModelError, match="ends texts with the id 5"):
        load_dual_encoder(str(tmp_path))


def test_our_text_tower_is_that_of_transformers(tmp_path: Path) -> None:
    theirs = hub_clip(tmp_path)
    words = WordTokenizer(words=tuple(map(str, range(53))), context_length=16)
    sizes = {**SMALL, "layers": (1, 1, 1, 1)}
    ours = ClipResNet(words, **sizes).eval()  # type: ignore[arg-type]
    _copy_text(theirs, ours)
    ids = words(["3 1 4", "1 5 9 2 6 5 3 5"])
    wide = torch.where(ids == 0, words.end, ids)  # transformers pads with the end
    found = theirs.get_text_features(input_ids=wide).pooler_output
    expected = nn.functional.normalize(found, dim=1)
    torch.testing.assert_close(ours.encode_texts(ids), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def _copy_text(theirs: Any, ours: ClipResNet) -> None:
    text = theirs.text_model
    ours.token_embedding.weight.copy_(text.embeddings.token_embedding.weight)
    ours.positional_embedding.copy_(text.embeddings.position_embedding.weight)
    ours.ln_final.load_state_dict(text.final_layer_norm.state_dict())
    ours.text_projection.copy_(theirs.text_projection.weight.T)
    for block, layer in zip(
        ours.transformer.resblocks, text.encoder.layers, strict=True
    ):
        own: Any = block
        parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
        own.attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        own.attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        own.attn.out_proj.load_state_dict(layer.self_attn.out_proj.state_dict())
        own.ln_1.load_state_dict(layer.layer_norm1.state_dict())
        own.ln_2.load_state_dict(layer.layer_norm2.state_dict())
        own.mlp.c_fc.load_state_dict(layer.mlp.fc1.state_dict())
        own.mlp.c_proj.load_state_dict(layer.mlp.fc2.state_dict())


class Foreign(nn.Module):
    """Has the face of a model of open_clip; inside is one of ours."""

    def __init__(self) -> None:
        super().__init__()
        inner = small(layers=(1, 1, 1, 1))
        self.text = (inner,)  # not registered: its weights are not saved twice
        self.visual = inner.visual
        self.visual.image_size = (32, 32)  # type: ignore[assignment]
        self.visual.image_mean = (0.5, 0.5, 0.5)  # type: ignore[assignment]
        self.logit_scale = inner.logit_scale
        self.context_length = 16

    def encode_image(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.visual(images)
        return 3 * vectors

    def encode_text(self, ids: Tensor) -> Tensor:
        assert ids.shape[1] == 16, "the library adds all positions"
        return 5 * self.text[0].encode_texts(ids)


def padded(captions: list[str]) -> Tensor:
    ids = small().tokenizer(captions)
    return nn.functional.pad(ids, (0, 16 - ids.shape[1]))


def test_a_model_with_the_face_of_open_clip_goes_through_the_same_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: Any = ModuleType("open_clip")
    library.create_model = lambda name: {"small": Foreign}[name]()
    library.get_tokenizer = lambda _: padded
    monkeypatch.setitem(sys.modules, "open_clip", library)
    model = load_foreign(tmp_path)
    assert model.tokenize(["a dog"]).shape[1] == 4
    inner = small(layers=(1, 1, 1, 1)).eval()
    want = nn.functional.normalize(inner.visual((IMAGES - 0.5) / model.std), dim=1)  # type: ignore[operator]
    torch.testing.assert_close(model.encode_images(IMAGES), want, atol=1e-5, rtol=0)
    save_dual_encoder(model, tmp_path / "out")
    again = load_dual_encoder(f"open_clip:small@{tmp_path}/out/model.safetensors")
    assert vectors(again).equal(vectors(model))
    with pytest.raises(ModelError, match="a model that open_clip knows, got 'big'"):
        load_dual_encoder(f"open_clip:big@{tmp_path}/w.safetensors")


def load_foreign(folder: Path) -> DualEncoder:
    from safetensors.torch import save_file

    weights = {f"module.{k}": v.clone() for k, v in Foreign().state_dict().items()}
    save_file(weights, folder / "w.safetensors")
    return load_dual_encoder(f"open_clip:small@{folder}/w.safetensors")


def test_without_open_clip_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModelError, match=r"install bezoar\[hub\]"):
        load_dual_encoder("open_clip:RN50@weights.safetensors")
    with pytest.raises(ModelError, match="open_clip:NAME@weights"):
        load_dual_encoder("open_clip:RN50")


def test_what_cannot_be_saved_or_found_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="CLIP model and its tokenizer"):
        load_dual_encoder(str(tmp_path))
    model = small()
    model.tokenizer = SimpleNamespace(num_ids=3)
    with pytest.raises(ModelError, match="expected a WordTokenizer to save"):
        save_dual_encoder(model, tmp_path)
