"""Speed must not change results: each case compares with the model as it is."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.utils import parametrizations
from transformers import ResNetConfig, ResNetForImageClassification

from bezoar.errors import ModelError
from bezoar.models import (
    Normalized,
    convnet,
    frozen,
    frozen_folded,
    resnet18,
    resnet50,
    tap,
)

CPU = torch.device("cpu")
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def lived(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights far from the first ones."""
    stream = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                if tensor is not None:
                    tensor.data.normal_(0, 0.5, generator=stream)
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=stream)
    return model


def normalised(model: nn.Module) -> Normalized:
    return Normalized(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def folded(model: nn.Module, images: Tensor | None = None) -> nn.Module:
    return frozen_folded(model, device=CPU, dtype=torch.float32, images=images)


def outputs(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, and the gradient of a mixture of them to the images."""
    images = images.clone().requires_grad_()
    with frozen(model):
        logits = model(images)
        mix = (logits * torch.arange(1, 1 + logits.shape[1])).sum()
        (slope,) = torch.autograd.grad(mix, images)
    return logits.detach(), slope


def assert_same(ours: nn.Module, model: nn.Module, images: Tensor = IMAGES) -> None:
    """Both agree to 1e-4 of the largest number: rounding in float32."""
    for a, b in zip(outputs(ours, images), outputs(model, images), strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def num_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    "model",
    [
        convnet(3, width=8),
        resnet18(3, width=8),
        resnet50(3, stem="imagenet", width=4),
    ],
)
def test_every_batch_norm_of_ours_is_folded(model: nn.Module) -> None:
    model = normalised(lived(model))
    fast = folded(model)
    assert fast.folded == num_norms(model) > 0
    assert num_norms(fast) == 0
    assert_same(fast, model)
    assert [name for name, _ in fast.named_modules()] == [
        name for name, _ in model.named_modules()
    ]


def test_a_model_of_transformers_is_folded() -> None:
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    model = lived(ResNetForImageClassification(config)).eval()
    fast = folded(model)
    assert fast.folded == 6
    with torch.no_grad():
        ours, theirs = fast(IMAGES).logits, model(IMAGES).logits
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_linear_layers_and_biases_are_folded() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False)),
        *(nn.Flatten(), nn.Linear(4 * 14 * 14, 5), nn.BatchNorm1d(5)),
    )
    fast = folded(lived(model), IMAGES)
    assert fast.folded == 2
    assert_same(fast, model)


class Shared(nn.Module):
    """Uses the output of its second convolution beside the batch norm, as asked."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.use = use
        self.start = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.late = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.conv(self.start(images))
        if self.use == "in place":
            x[:, 0] = 0
        y = self.bn(x)
        if self.use == "sum":
            y = y + x
        if self.use == "twice":
            y = self.bn(y)
        if self.use == "again":
            y = self.bn(self.conv(y))
        logits: Tensor = self.late(y.mean(dim=(2, 3)))
        return (logits, x) if self.use == "returned" else logits


@pytest.mark.parametrize("use", ["in place", "sum", "twice", "again", "returned"])
def test_an_output_that_is_used_elsewhere_is_not_folded(use: str) -> None:
    model = lived(Shared(use))
    fast = folded(model, IMAGES)
    assert fast.folded == 1  # the pair at the start, which is sound
    assert isinstance(fast.get_submodule("bn"), nn.BatchNorm2d)
    if use != "returned":
        assert_same(fast, model)


def test_a_look_at_the_shape_is_no_use() -> None:
    class Looks(Shared):
        def forward(self, images: Tensor) -> Tensor:
            x = self.conv(self.start(images))
            assert x.shape[1] == x.size(1) == 3
            logits: Tensor = self.late(self.bn(x).mean(dim=(2, 3)))
            return logits

    assert folded(lived(Looks("")), IMAGES).folded == 2


def test_subclasses_that_compute_the_same_are_folded() -> None:
    class Depthwise(nn.Conv2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, channels, 3, groups=channels)

    class Standardised(nn.Conv2d):
        def _conv_forward(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            out: Tensor = super()._conv_forward(x, w - w.mean(), b)
            return out

    model = nn.Sequential(
        *(Depthwise(3), nn.BatchNorm2d(3), Standardised(3, 3, 3), nn.BatchNorm2d(3)),
        *(nn.Flatten(), nn.Linear(3 * 12 * 12, 2)),
    )
    fast = folded(lived(model), IMAGES)
    assert fast.folded == 1
    assert_same(fast, model)


def test_what_cannot_be_folded_exactly_stays() -> None:
    class Scaled(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 1), Scaled(3)),
        *(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        *(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
        *(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        *(nn.Flatten(), nn.Linear(768, 2)),
    )
    fast = folded(lived(model), IMAGES)
    assert fast.folded == 1  # the last
    assert_same(fast, model)


def test_a_fold_that_fails_the_check_is_not_made() -> None:
    class Peeks(nn.Module):
        """Reads a weight of the layer itself, which folding changes."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.bn = nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            x: Tensor = self.bn(self.conv(images))
            return x.mean(dim=(2, 3)) + self.conv.weight.sum()

    model = lived(Peeks())
    fast = folded(model, IMAGES)
    assert fast.folded == 0
    assert_same(fast, model)


def test_nothing_of_the_callers_changes() -> None:
    model = normalised(resnet18(3, width=4))
    model.model.eval()  # modes are mixed, and one weight is frozen
    next(model.parameters()).requires_grad_(False)
    seen: list[Tensor] = []
    model.model.get_submodule("layer1").register_forward_hook(
        lambda _, __, output: seen.append(output)
    )
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    slopes = [p.requires_grad for p in model.parameters()]
    state = torch.random.get_rng_state()
    fast = folded(model)
    after = model.state_dict()
    assert all(after[name].equal(before[name]) for name in before)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == slopes
    assert torch.random.get_rng_state().equal(state)
    assert not any(m.training for m in fast.modules())
    assert not any(p.requires_grad for p in fast.parameters())
    assert not {p.data_ptr() for p in fast.parameters()} & {
        p.data_ptr() for p in model.parameters()
    }


def test_a_hook_that_changes_an_output_still_does() -> None:
    model = lived(convnet(3, width=4))
    model.get_submodule("stage1.conv").register_forward_hook(lambda _, __, y: 2 * y)
    fast = folded(model)
    assert fast.folded == num_norms(model) - 1
    assert_same(fast, model)


def test_parametrized_weights_are_folded_as_they_are_in_eval_mode() -> None:
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        parametrizations.weight_norm(nn.Linear(4 * 14 * 14, 2)),
    )
    fast = folded(lived(model), IMAGES)
    assert fast.folded == 1
    assert_same(fast, model)
    # Copies share the class that torch makes for one parametrized module.
    assert isinstance(model.get_submodule("0.parametrizations"), nn.ModuleDict)
    assert not any("parametrizations" in name for name in fast.state_dict())


def test_wrappers_for_several_devices_are_taken_off() -> None:
    model = lived(convnet(3, width=4))
    fast = folded(nn.DataParallel(model))
    assert fast.folded == num_norms(model)
    assert_same(fast, model)


def test_a_layer_to_be_read_keeps_its_own_output() -> None:
    model = lived(convnet(3, width=4)).eval()
    fast = frozen_folded(
        model, device=CPU, dtype=torch.float32, keep=["stage2.conv", "stage3.bn"]
    )
    assert fast.folded == num_norms(model) - 1
    for layer in ("stage2.conv", "stage3.bn", "stage4"):
        with tap(fast, layer) as ours, tap(model, layer) as theirs:
            fast(IMAGES), model(IMAGES)
        assert torch.allclose(ours.output, theirs.output, atol=1e-5)


@pytest.mark.parametrize("wrap", [normalised, nn.Sequential])
def test_bfloat16_takes_float32_images_and_stays_near(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    model = wrap(lived(convnet(10, width=16)))
    fast = frozen_folded(model, device=CPU, dtype=torch.bfloat16)
    logits, slope = outputs(fast, IMAGES)
    expected, expected_slope = outputs(model, IMAGES)
    assert fast.folded == num_norms(model)
    assert logits.dtype == torch.bfloat16
    assert slope.dtype == torch.float32
    # Five layers that each round to 8 bits: half a percent a layer, and cancellation;
    # in the gradient, each ReLU near 0 that rounding switches is a wrong path.
    assert (logits - expected).norm() <= 0.03 * expected.norm()
    assert cosine_similarity(slope.flatten(), expected_slope.flatten(), dim=0) > 0.99


def test_statistics_stay_in_float32() -> None:
    model = normalised(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)))
    fast = frozen_folded(model, device=CPU, dtype=torch.bfloat16, images=IMAGES)
    kinds = {name: value.dtype for name, value in fast.state_dict().items()}
    assert kinds["mean"] == kinds["std"] == torch.float32
    assert kinds["model.0.running_mean"] == kinds["model.0.weight"] == torch.float32
    assert kinds["model.1.weight"] == torch.bfloat16


def test_layout_is_channels_last_where_the_model_bears_it() -> None:
    class Views(nn.Module):
        """Flattens with view, which asks for the layout of old."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4 * 14 * 14, 2)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.conv(images).view(len(images), -1))
            return logits

    free = folded(convnet(2, width=4)).get_parameter("stage2.conv.weight")
    bound = folded(Views(), IMAGES).get_parameter("conv.weight")
    assert free.is_contiguous(memory_format=torch.channels_last)
    assert bound.is_contiguous()


def test_a_model_that_runs_on_no_size_tried_is_copied_as_it_is() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(60, 2))
    )
    fast = folded(model)
    assert fast.folded == 0
    images = torch.rand(2, 3, 5, 7)
    assert_same(fast, model, images)
    assert folded(model, images).folded == 1


def test_a_layer_to_be_read_must_be_there() -> None:
    with pytest.raises(ModelError, match=r"got 'stage9'; choose one such as 'stage"):
        frozen_folded(
            convnet(2, width=4), device=CPU, dtype=torch.float32, keep=["stage9"]
        )


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = convnet(2, width=4)
    model.cache = model(torch.rand(2, 3, 8, 8))
    with pytest.raises(
        ModelError, match=r"can be copied, got RuntimeError: .*; remove"
    ):
        folded(model)


def test_a_model_that_is_bound_to_float32_is_refused_in_another_type() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(768, 2)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.fc(images.flatten(1).float())
            return logits

    assert folded(Mixed(), IMAGES)(IMAGES).shape == (4, 2)
    with pytest.raises(ModelError, match=r"computes in torch.bfloat16 on cpu, got Ru"):
        frozen_folded(Mixed(), device=CPU, dtype=torch.bfloat16, images=IMAGES)
