"""Batch norms folded into the layers before them.

In eval mode a batch norm is a fixed affine map, y = g (x - m) / sqrt(v + eps) + b;
after a convolution or a linear layer it is the same as another weight and bias there.
Which batch norm follows which layer is read off one forward pass, so that it does not
matter how the model is written; the result is then checked against the original.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

_TOLERANCE = 1e-4  # of the largest output: float32 rounding over some hundred layers
_FIRSTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def folded(
    model: nn.Module, images: Tensor, *, keep: Collection[str] = ()
) -> tuple[nn.Module, int]:
    """Return a copy in which batch norms are folded where that changes nothing.

    A batch norm is folded if it is the only one to use the output of a convolution or
    a linear layer, and both run once. If the outputs then differ by more than 1e-4 of
    the largest, nothing is folded.

    Args:
        model: A model in eval mode, in float32 on the CPU.
        images: At least two images that it takes, in [0, 1].
        keep: Names of layers whose own output is to stay.

    Returns:
        The copy, or the model itself if nothing was folded, and how many were.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        >>> folded(net, torch.rand(2, 3, 8, 8))[1]
        1
    """
    try:
        twin = copy.deepcopy(model)
        pairs = _pairs(twin, images, keep)
        for pair in pairs:
            _fold(twin, pair)
        others = 1 - images.flip(0, 3)  # not the images that showed the pairs
        with torch.no_grad():
            same = _agree(twin(others), model(others))
    except Exception:  # a model that meddles with its modules: it stays as it is
        return model, 0
    return (twin, len(pairs)) if same else (model, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A layer, and the batch norm that alone uses its output."""

    first: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
    norm: _BatchNorm


class _Uses(TorchFunctionMode):
    """Counts the functions that each tensor goes into."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.alive: list[Tensor] = []  # or a new tensor could get an old one's id

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if result is None or _has_tensor(result):  # not a mere look at shape or type
            used = list(_tensors((args, kwargs)))
            self.alive += used
            self.counts.update(map(id, used))
        return result


def _pairs(model: nn.Module, images: Tensor, keep: Collection[str]) -> list[_Pair]:
    """Return the pairs that can be folded, as one forward pass shows them."""
    kept = {model.get_submodule(name) for name in keep}
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    met: list[tuple[nn.Module, Tensor, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def after(module: nn.Module, _: object, output: Tensor) -> None:
        calls[module] += 1
        made[id(output)] = (module, output)

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        first, output = made.get(id(inputs[0]), (None, None))
        if first is not None and output is not None:
            met.append((first, output, module))

    plain = [module for module in model.modules() if is_plain(module)]
    firsts = [m for m in plain if _acts_as(m, _FIRSTS) and m not in kept]
    norms = [m for m in plain if _acts_as(m, _NORMS)]
    handles = [module.register_forward_hook(after) for module in firsts]
    handles += [module.register_forward_pre_hook(before) for module in norms]
    try:
        with torch.no_grad(), _Uses() as uses:
            returned = {id(tensor) for tensor in _tensors(model(images))}
    finally:
        for handle in handles:
            handle.remove()
    return [
        _Pair(first=first, norm=norm)  # type: ignore[arg-type]
        for first, output, norm in met
        if calls[first] == calls[norm] == uses.counts[id(output)] == 1
        and id(output) not in returned
        and output.shape[1] == len(first.weight)  # type: ignore[arg-type]
    ]


def is_plain(module: nn.Module) -> bool:
    """Tell whether calling a module does what its class says, and nothing else.

    Args:
        module: Any module.

    Returns:
        False if it has hooks, a forward of its own, or statistics of the batch.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    fixed = not isinstance(module, _BatchNorm) or module.running_var is not None
    return fixed and not any(hooks) and "forward" not in vars(module)


def _acts_as(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    # A subclass may have its own way to be made, but not its own way to compute.
    return any(
        isinstance(module, kind)
        and all(
            getattr(type(module), name, None) is getattr(kind, name, None)
            for name in ("forward", "_conv_forward")
        )
        for kind in kinds
    )


def _fold(model: nn.Module, pair: _Pair) -> None:
    """Give the layer the weight and the bias of both, and take out the batch norm."""
    first, norm = pair.first, pair.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    zeros = torch.zeros_like(norm.running_mean)
    bias = zeros if first.bias is None else first.bias
    shift = zeros if norm.bias is None else norm.bias
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    across = scale.view(-1, *[1] * (first.weight.ndim - 1))
    weight = (first.weight.double() * across).float()
    offset = ((bias.double() - norm.running_mean.double()) * scale + shift).float()
    # New parameters: another layer may share the old ones.
    first.weight = nn.Parameter(weight, requires_grad=False)
    first.bias = nn.Parameter(offset, requires_grad=False)
    replace_module(model, norm, nn.Identity().eval())


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put one module in the place of another, under every name that it has.

    Args:
        model: The model that holds it; changed in place.
        old: The module to take out.
        new: The module to put in.
    """
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                setattr(parent, name, new)


def _agree(ours: object, theirs: object) -> bool:
    pairs = list(zip(_tensors(ours), _tensors(theirs), strict=True))
    return bool(pairs) and all(
        float((a - b).abs().max()) <= _TOLERANCE * float(b.abs().max())
        for a, b in pairs
        if b.is_floating_point() and b.numel()
    )


def _has_tensor(value: object) -> bool:
    return next(_tensors(value), None) is not None


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
