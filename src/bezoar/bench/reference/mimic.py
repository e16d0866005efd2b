"""Both phases of MIMIC as the official loop takes them, in plain steps.

The student runs three times a step (view 1 as it is, view 1 once more to read its
layers, view 2), the teacher twice, once with a gradient that nobody uses. The hooks of
the official code, which are set anew each batch and never removed, are left out unless
``leak`` asks for as many per layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def plain_loss(
    student: nn.Module,
    projector: nn.Module,
    teacher: nn.Module,
    views: tuple[Tensor, Tensor],
    layers: Sequence[str],
    weights: Sequence[float],
    *,
    temperature: float = 0.5,
    leak: int = 0,
) -> Tensor:
    """Return the loss of one step.

    Args:
        student: Maps images to vectors; in training mode.
        projector: Maps vectors to projections.
        teacher: Maps images to vectors; in eval mode.
        views: Two views of each image.
        layers: Modules to compare.
        weights: Of their terms.
        temperature: Of the contrastive term.
        leak: How many more hooks hang on each layer, as batches gone by left them.

    Returns:
        Contrastive, weighted attention and clone term.
    """
    first, second = views
    left = [_hang(net, layers, leak) for net in (student,) if leak]
    try:
        vectors = student(first)
        own, aims = _outputs(student, first, layers), _outputs(teacher, first, layers)
        pairs = torch.cat(
            [_unit(projector(vectors)), _unit(projector(student(second)))]
        )
        loss = _contrastive(pairs, temperature)
        for mine, aim, weight in zip(own, aims, weights, strict=True):
            apart = _attention(mine) - _attention(aim.detach())
            loss = loss + weight * (apart**2).mean()
        cosines = (_unit(teacher(first)) * _unit(vectors)).sum(1)
        return loss - cosines.mean()
    finally:
        for handles in left:
            for handle in handles:
                handle.remove()


def plain_epoch(
    encoder: nn.Module,
    images: Tensor,
    layer: str,
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
) -> float:
    """Train a critic on one layer for an epoch, and look once more, as the code does.

    Args:
        encoder: In eval mode; run anew for each batch, twice an epoch.
        images: In [0, 1].
        layer: Whose activations are looked at.
        critic: Maps joined rows to values.
        optimizer: Steps its weights.
        batch_size: Images per step.

    Returns:
        The mean bound.
    """

    def bound(batch: Tensor) -> Tensor:
        with torch.no_grad():
            vectors, maps = _tapped(encoder, batch, [layer])
            a, z = maps[0].flatten(1), _unit(vectors)
        mixed = z[torch.randperm(len(z))]
        joint, apart = critic(torch.cat([a, z], 1)), critic(torch.cat([a, mixed], 1))
        value: Tensor = joint.mean() - apart.exp().mean().log()
        return value

    for batch in images.split(batch_size):
        optimizer.zero_grad()
        (-bound(batch)).backward()
        optimizer.step()
    with torch.no_grad():
        values = [max(0.0, bound(batch).item()) for batch in images.split(batch_size)]
    return sum(values) / len(values)


def plain_information(
    activations: Tensor,
    features: Tensor,
    critic: Callable[[Tensor], Tensor],
    order: Tensor,
) -> Tensor:
    """Return the Donsker-Varadhan bound of a batch, pair by pair.

    Args:
        activations: One row for each image.
        features: One row for each image.
        critic: Maps one joined row to one value.
        order: A permutation of the images.

    Returns:
        ``mean T(a_i, z_i) - log mean exp T(a_i, z_order(i))``.
    """
    count = len(features)
    joint = [critic(torch.cat([activations[i], features[i]])) for i in range(count)]
    apart = [
        critic(torch.cat([activations[i], features[int(order[i])]]))
        for i in range(count)
    ]
    total = sum(value.exp() for value in apart)
    assert isinstance(total, Tensor)
    return torch.stack(joint).mean() - (total / count).log()


def _contrastive(pairs: Tensor, temperature: float) -> Tensor:
    half = len(pairs) // 2
    similar = (pairs @ pairs.T / temperature).exp()
    others = similar.masked_fill(torch.eye(len(pairs), dtype=torch.bool), 0.0).sum(1)
    partners = (pairs[:half] * pairs[half:]).sum(1).div(temperature).exp().repeat(2)
    return -(partners / others).log().mean()


def _attention(maps: Tensor) -> Tensor:
    summed = (maps.abs() ** 2).sum(1)
    norms: Tensor = summed.flatten(1).norm(dim=1)[:, None, None]
    return summed / (norms + 1e-6)


def _unit(rows: Tensor) -> Tensor:
    norms: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norms


def _outputs(net: nn.Module, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
    return _tapped(net, images, layers)[1]


def _tapped(
    net: nn.Module, images: Tensor, layers: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    seen: dict[str, Tensor] = {}
    handles = [
        net.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: seen.__setitem__(layer, output)
        )
        for layer in layers
    ]
    try:
        vectors = net(images)
    finally:
        for handle in handles:
            handle.remove()
    return vectors, [seen[layer] for layer in layers]


def _hang(
    net: nn.Module, layers: Sequence[str], count: int
) -> list[torch.utils.hooks.RemovableHandle]:
    kept: dict[str, Tensor] = {}

    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        kept["latest"] = output

    return [
        net.get_submodule(layer).register_forward_hook(hook)
        for layer in layers
        for _ in range(count)
    ]


def gaussian_information(correlation: float, size: int) -> float:
    """Return the information of two Gaussian vectors, in nats.

    Args:
        correlation: Of each pair of values.
        size: Values in a vector.

    Returns:
        ``-size / 2 log(1 - correlation^2)``.

    Example:
        >>> round(gaussian_information(0.9, 5), 3)
        4.152
    """
    return -size / 2 * math.log(1 - correlation**2)
