"""A frozen copy of a model, made for many forward passes and input gradients."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from bezoar.errors import ModelError
from bezoar.models.fold import folded, is_plain, replace_module
from bezoar.models.probe import probe_images, reason
from bezoar.models.wrap import Normalized, named_module, unwrapped
from bezoar.shapes import Float


def frozen_folded(
    model: nn.Module,
    *,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.channels_last,
    images: Tensor | None = None,
    keep: Collection[str] = (),
) -> nn.Module:
    """Return a copy that computes the same with less work.

    The copy is in eval mode, its weights need no gradient, and gradients to the images
    are as before. Each batch norm that follows a convolution or a linear layer, and is
    the only one to use its output, is folded into it; where the outputs would differ
    by more than 1e-4 of the largest, nothing is folded. Names of modules stay, but a
    folded layer gives what its batch norm gave; list those to read in ``keep``.
    Means, deviations and the statistics of other batch norms stay in float32.

    A model that cannot be copied, or does not compute in this type on this device, or
    has no layer of a name in ``keep``, is a ``ModelError``.

    Args:
        model: The caller's model; it is neither run nor changed. Hooks on it are part
            of what it computes: the copy has them too.
        device: Where the copy is to be.
        dtype: Type of its arithmetic. It takes float32 images all the same.
        memory_format: Layout of its convolutions; another is taken if the model does
            not run in it.
        images: Float images in [0, 1] for the check; None makes some of a likely size.
        keep: Names of layers whose own output is to be read.

    Returns:
        The copy; its attribute ``folded`` is the number of batch norms folded.

    Example:
        >>> from bezoar.models.convnet import convnet
        >>> net = convnet(2, width=4)
        >>> fast = frozen_folded(
        ...     net, device=torch.device("cpu"), dtype=torch.float32
        ... )
        >>> fast.folded > 0, net.training, fast.training
        (True, True, False)
    """
    for name in keep:
        named_module(model, name)  # tells a wrong name
    fast = _copied(model)
    count = 0
    probe = next((p for p in probe_images(fast, images) if _run(fast, p)), None)
    if probe is not None:
        fast, count = folded(fast, probe, keep=keep)
        fast = _multiply_add(fast)
        _lay_out(fast, memory_format)
        if not _run(fast, probe):  # such as a view() that asks for the other layout
            _lay_out(fast, torch.contiguous_format)
    _cast(fast, device=device, dtype=dtype)
    if probe is not None:
        _check_runs(fast, probe.to(device), dtype)
    fast.folded = count  # type: ignore[assignment]
    return fast


def _copied(model: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(unwrapped(model))
    except Exception as error:
        raise ModelError(
            f"expected a model that can be copied, got {reason(error)}; remove what "
            "it holds besides weights, such as outputs kept by a hook"
        ) from error
    twin.eval().requires_grad_(False).zero_grad(set_to_none=True)
    twin.to(device="cpu", dtype=torch.float32)
    for module in list(twin.modules()):
        if parametrize.is_parametrized(module):
            _settle(module)
    return twin.requires_grad_(False)


def _settle(module: nn.Module) -> None:
    """Turn weights that are computed at each pass into plain ones.

    torch's own function for this would change the class, which the caller's module
    shares with the copy.

    Args:
        module: A parametrized module of the copy, in eval mode.
    """
    parametrized = module._modules["parametrizations"]
    assert isinstance(parametrized, nn.ModuleDict)
    values = {name: getattr(module, name).detach().clone() for name in parametrized}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


class _MultiplyAdd(Normalized):
    """The same normalisation in one pass over the images instead of two.

    It is not folded further: the first convolution pads with zeros, which the mean in
    its bias would shift at the border.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, source: Normalized) -> None:
        nn.Module.__init__(self)
        self.model = source.model
        self.image_size = source.image_size
        self.class_names = source.class_names
        self.register_buffer("mean", source.mean)
        self.register_buffer("std", source.std)
        self.register_buffer("scale", 1 / source.std)
        self.register_buffer("shift", -source.mean / source.std)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Return the output of the model inside for images in [0, 1]."""
        normalised = torch.addcmul(self.shift, images, self.scale)
        output: Tensor = self.model(normalised)
        return output


def _multiply_add(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        if type(module) is Normalized and is_plain(module):
            new = _MultiplyAdd(module).eval()
            replace_module(model, module, new)
            model = new if module is model else model
    return model


def _lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight.data
            module.weight.data = weight.contiguous(memory_format=memory_format)


def _cast(model: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
    """Move and cast a model, all but the numbers that must be exact."""
    model.to(device=device)
    if dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, Normalized | _BatchNorm):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))
    wraps = [module for module in model.modules() if isinstance(module, Normalized)]
    for taker in [wrap.model for wrap in wraps] or [model]:
        taker.register_forward_pre_hook(partial(_cast_inputs, dtype), prepend=True)


def _cast_inputs(
    dtype: torch.dtype, _: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in inputs
    )


def _check_runs(model: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    try:
        with torch.no_grad():
            model(images)
    except Exception as error:
        raise ModelError(
            f"expected a model that computes in {dtype} on {images.device}, got "
            f"{reason(error)}; run it in torch.float32 on the CPU"
        ) from error


def _run(model: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(images)
    except Exception:  # any model may refuse any size in its own way
        return False
    return True
