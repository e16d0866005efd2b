"""What one forward pass tells about a model: its errors, its last feature map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.wrap import (
    Normalized,
    first_tensor,
    frozen,
    like_weights,
    unwrapped,
)
from bezoar.runtime import generator

_SIZES = (32, 64, 224, 28, 96, 128, 256, 299, 384)


def check_model_output(
    model: nn.Module, images: Tensor, num_classes: int | None = None
) -> int:
    """Check by one forward pass that a model gives finite logits for images.

    Args:
        model: The caller's model; it stays as it is.
        images: Float images in [0, 1], NCHW; only the first two are used.
        num_classes: Classes that the data have; None accepts any number.

    Returns:
        How many logits the model gives for an image.

    Raises:
        ModelError: If weights or logits are not finite, the model refuses the images,
            or gives something else than a tensor (n, classes) of the right width.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
        >>> check_model_output(net, torch.zeros(1, 1, 2, 2))
        10
    """
    check_weights(model)
    few = like_weights(images[:2].to(_device(model)), model)
    try:
        with frozen(model), torch.no_grad():
            output = model(few)
    except Exception as error:
        raise ModelError(
            f"expected a model that takes images {tuple(few.shape[1:])}, got "
            f"{reason(error)}; give images of the size and the channels that it was "
            "trained on"
        ) from error
    if not isinstance(output, Tensor):
        raise ModelError(
            f"expected logits as one tensor (n, classes), got {_kind(output)}; "
            "wrap the model so that it returns the logits"
        )
    return _check_logits(output, len(few), num_classes)


def check_weights(model: nn.Module) -> None:
    """Check that every weight and every statistic of a model is finite.

    Args:
        model: The model to look at.

    Raises:
        ModelError: If one is NaN or infinite; the message names it.
    """
    for name, tensor in unwrapped(model).state_dict().items():
        if isinstance(tensor, Tensor) and not _is_finite(tensor):
            raise ModelError(
                f"expected finite weights, got NaN or infinity in {name!r}; "
                "take a checkpoint from before the training diverged"
            )


def default_layer(model: nn.Module, images: Tensor | None = None) -> str:
    """Name the module that gives the last feature map before pooling.

    That is the last to finish of the modules that give a map (n, c, h, w) of more than
    one pixel, or tokens (n, t, d) as vision transformers do, and are no pooling.

    Args:
        model: The caller's model; one forward pass is made, and it stays as it is.
        images: Float images in [0, 1] to run; None makes some of a likely size.

    Returns:
        The module's name as in ``named_modules``; ``"layer4"`` for a ResNet.

    Raises:
        ModelError: If the model does not run, or has no feature map.

    Example:
        >>> from bezoar.models.resnet import resnet18
        >>> default_layer(resnet18(2, width=4))
        'layer4'
    """
    core = unwrapped(model)
    outputs = _first_run(core, images)
    maps = [out for out in outputs if out.is_map]
    last = max(maps, key=lambda out: out.end, default=None)
    if last is None:
        raise ModelError(
            f"expected a model with a feature map, got {type(core).__name__} without; "
            "name the layer to look at"
        )
    same = [out for out in outputs if out.tensor is last.tensor]
    return max(same, key=lambda out: (out.rank, out.end)).name


def probe_images(
    model: nn.Module, images: Tensor | None = None, *, first: int = 32
) -> Iterator[Tensor]:
    """Yield pairs of images in [0, 1] that a model may take, the likeliest first.

    Args:
        model: The model to run.
        images: Images known to fit; then only two of these are yielded.
        first: Size to try first, in pixels, where the model does not tell its own.

    Yields:
        Float images on the model's device, in the type of its weights.
    """
    if images is not None:
        pair = images[:2].expand(2, -1, -1, -1)
        yield like_weights(pair.to(_device(model)), model)
        return
    for size in dict.fromkeys((*_known_sizes(model), first, *_SIZES)):
        shape = (2, _channels(model), size, size)
        noise = torch.rand(shape, generator=generator(0, "probe", size))
        yield like_weights(noise.to(_device(model)), model)


def reason(error: BaseException) -> str:
    """Return an error of foreign code as one line.

    Args:
        error: What the code raised.

    Returns:
        The error's type and the first line of its text.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else repr(error)


def _first_run(model: nn.Module, images: Tensor | None) -> Sequence[_Output]:
    tried: Exception | None = None
    for probe in probe_images(model, images, first=64):
        try:
            return _recorded(model, probe)
        except Exception as error:  # any model may refuse any size in its own way
            tried = tried or error
    assert tried is not None
    raise ModelError(
        f"expected a model that takes images of a usual size, got {reason(tried)}; "
        "give some images, or name the layer"
    ) from tried


@dataclass(frozen=True, kw_only=True, eq=False)
class _Output:
    """What one module gave; ``end`` counts the modules in the order they finished."""

    name: str
    tensor: Tensor
    end: int
    is_map: bool
    rank: int  # of names for one tensor: the module made it, rather than passed it on


def _recorded(model: nn.Module, images: Tensor) -> Sequence[_Output]:
    """Return what each module gives for images."""
    outputs: list[_Output] = []
    pooled: set[int] = set()  # ids of tensors that are alive in outputs

    def record(name: str, module: nn.Module, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            return
        if "Pool" in type(module).__name__:
            pooled.add(id(tensor))
        passes = isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d)
        outputs.append(
            _Output(
                name=name,
                tensor=tensor,
                end=len(outputs),
                is_map=_is_map(tensor) and id(tensor) not in pooled,
                rank=0 if passes else 1 + isinstance(output, Tensor),
            )
        )

    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: record(name, module, output)
        )
        for name, module in model.named_modules()
        if name
    ]
    try:
        with frozen(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _is_map(tensor: Tensor) -> bool:
    if tensor.ndim == 4:
        return tensor.shape[2] * tensor.shape[3] > 1
    return tensor.ndim == 3 and tensor.shape[1] > 1 and tensor.shape[2] > 1


def _check_logits(output: Tensor, num_images: int, num_classes: int | None) -> int:
    if output.ndim != 2 or len(output) != num_images:
        raise ModelError(
            f"expected logits (n, classes) for {num_images} images, got a tensor "
            f"{tuple(output.shape)}; wrap the model so that it returns the logits"
        )
    if num_classes is not None and output.shape[1] != num_classes:
        raise ModelError(
            f"expected logits for the {num_classes} classes of the data, got "
            f"{output.shape[1]}; give the model that was trained on these classes, or "
            "select their logits with Head"
        )
    if not _is_finite(output):
        raise ModelError(
            "expected finite logits, got NaN or infinity; check that the model takes "
            "images in [0, 1] and that its weights belong to it"
        )
    return output.shape[1]


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _kind(output: object) -> str:
    if isinstance(output, dict):  # also the ModelOutput of transformers
        names = ", ".join(map(str, list(output)[:4]))
        return f"a {type(output).__name__} with {names or 'nothing in it'}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _device(model: nn.Module) -> torch.device:
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def _channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, Normalized) and module.mean.numel() > 1:
            return module.mean.numel()
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def _known_sizes(model: nn.Module) -> tuple[int, ...]:
    sizes = [getattr(module, "image_size", None) for module in model.modules()]
    configs = [getattr(module, "config", None) for module in model.modules()]
    sizes += [getattr(config, "image_size", None) for config in configs]
    return tuple(size for size in sizes if isinstance(size, int))[:1]
