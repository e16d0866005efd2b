"""The residual CLIP: published names and sizes, and towers others compute alike."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bezoar.errors import ModelError
from bezoar.models import ClipResNet, WordTokenizer
from bezoar.models.clip_resnet import AttentionPool, ModifiedResNet
from bezoar.models.text_tower import Transformer

WORDS = WordTokenizer.from_captions(["a red dog", "one house"])
SMALL = {
    "resolution": 32,
    "layers": (1, 2, 1, 1),
    "width": 8,
    "embedding": 16,
    "text_width": 32,
    "text_layers": 2,
    "text_heads": 4,
    "stem": "small",
}


def small(**changes: object) -> ClipResNet:
    return ClipResNet(WORDS, **{**SMALL, **changes})  # type: ignore[arg-type]


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        tower = ModifiedResNet(
            (3, 4, 6, 3), width=64, resolution=224, embedding=1024, stem="large"
        )
        shape = tower(torch.empty(1, 3, 224, 224)).shape
    assert shape == (1, 1024)
    # 38.3 M, which with 63.7 M of the text tower is the 102.0 M of RN50
    assert sum(p.numel() for p in tower.parameters()) == 38_316_896


def test_names_are_those_of_the_published_files() -> None:
    names = small().state_dict().keys()
    assert {
        *("positional_embedding", "text_projection", "logit_scale"),
        *("token_embedding.weight", "ln_final.weight", "visual.conv3.weight"),
        *("visual.bn3.running_var", "visual.layer1.0.downsample.0.weight"),
        *("visual.layer2.1.conv3.weight", "visual.layer4.0.downsample.1.bias"),
        *("visual.attnpool.positional_embedding", "visual.attnpool.c_proj.bias"),
        *("transformer.resblocks.1.attn.in_proj_weight",),
        *("transformer.resblocks.0.attn.out_proj.bias",),
        *(
            "transformer.resblocks.0.mlp.c_fc.weight",
            "transformer.resblocks.0.ln_2.bias",
        ),
    } <= set(names)
    assert not [n for n in names if n.startswith(("mean", "std", "normal"))]


def test_the_pool_is_attention_from_the_mean() -> None:
    pool = AttentionPool(2, 8, heads=2, out=4)
    with torch.no_grad():
        nn.init.normal_(pool.positional_embedding)
    x = torch.randn(3, 8, 2, 2)
    flat = x.flatten(2).permute(2, 0, 1)
    every = torch.cat([flat.mean(0, keepdim=True), flat])
    every = every + pool.positional_embedding[:, None]
    expected, _ = nn.functional.multi_head_attention_forward(
        every[:1],
        every,
        every,
        embed_dim_to_check=8,
        num_heads=2,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        need_weights=False,
    )
    torch.testing.assert_close(pool(x), expected[0], atol=1e-5, rtol=1e-5)


def test_the_small_stem_leaves_the_pool_four_by_four() -> None:
    model = small().eval()
    assert model.visual.attnpool.positional_embedding.shape == (17, 256)
    vectors = model.encode_images(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert not vectors[0].allclose(vectors[1])


def test_every_image_weight_gets_a_gradient_at_first() -> None:
    model = small()
    model.encode_images(torch.rand(4, 3, 32, 32))[:, 0].sum().backward()
    still = {n for n, p in model.visual.named_parameters() if p.grad is None}
    assert not still
    stem = [p.grad for n, p in model.visual.named_parameters() if n == "conv1.weight"]
    assert stem[0] is not None
    assert bool(stem[0].abs().sum() > 0)


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ModelError, match="multiple of 8"):
        small(resolution=30)
    with pytest.raises(ModelError, match="four layers"):
        small(layers=(1, 1))


@pytest.mark.parametrize(("length", "billions"), [(77, 5.96), (24, 1.83), (16, 1.21)])
def test_short_captions_cost_less_in_the_published_text_tower(
    length: int, billions: float
) -> None:
    with torch.device("meta"):
        tower = Transformer(512, layers=12, heads=8, hidden=2048)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            tower(torch.empty(1, length, 512))
    assert counter.get_total_flops() / 1e9 == pytest.approx(billions, abs=0.01)
