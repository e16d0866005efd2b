"""How much of an encoder's features each of its layers tells, in nats.

The Donsker-Varadhan bound of MINE (Belghazi et al., 2018,
https://arxiv.org/abs/1801.04062), as MIMIC uses it; with the clamp of SMILE (Song and
Ermon, 2020, https://arxiv.org/abs/1910.06222) as an option. The bound is that of a
critic trained on a few thousand pairs: it over-fits, and the held-out value tells how
much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bezoar.data import ImageData
from bezoar.models.critic import Critic
from bezoar.repair.activations import Activations, Shown
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float

_HELD_OUT = " held out"
_LAST = 10  # epochs whose mean is the estimate
_EVERY = 10  # epochs from one point of the curve to the next before these


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """How information is estimated.

    Attributes:
        epochs: Passes over the images.
        lr: Step size of Adam.
        weight_decay: Weight decay.
        hidden: Values between the layers of a critic.
        pool: Largest side of a map that a critic sees; None shows it as it is.
        clip: Largest magnitude of a critic's values in the second term; None is DV.
        batch_size: Pairs per step; the last, smaller batch counts.
    """

    epochs: int = 200
    lr: float = 1e-3
    weight_decay: float = 1e-5
    hidden: int = 512
    pool: int | None = None
    clip: float | None = None
    batch_size: int = 128


@dataclass(frozen=True, kw_only=True)
class Information:
    """What was estimated.

    Attributes:
        values: By layer, in nats, never below 0: of held-out images if there are some.
        curve: Rows of "epoch" and, by layer, the raw value and "LAYER held out"; raw
            values may be below 0, or NaN.
    """

    values: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...]


def donsker_varadhan(
    joint: Float[Tensor, " b"],
    marginal: Float[Tensor, " b"],
    *,
    clip: float | None = None,
) -> Float[Tensor, ""]:
    """Return a lower bound of the mutual information.

    Args:
        joint: A critic's values of pairs that belong together.
        marginal: Its values of pairs that do not.
        clip: Bounds the second term's values to [-clip, clip] (SMILE); None does not.

    Returns:
        ``mean(joint) - log mean exp(marginal)`` in nats; finite for values of 1e4.

    Example:
        >>> donsker_varadhan(torch.full((4,), 1e4), torch.full((4,), 1e4)).item()
        0.0
    """
    bounded = marginal if clip is None else marginal.clamp(-clip, clip)
    return joint.mean() - (bounded.logsumexp(0) - math.log(len(bounded)))


def layer_weights(
    information: Mapping[str, float], *, base: float, total: float
) -> dict[str, float]:
    """Return the weight of each layer's attention term.

    Args:
        information: By layer, in nats, none below 0.
        base: What each layer gets (1000 in the official code).
        total: What is shared out by information (10000).

    Returns:
        ``base + total I_l / sum_k I_k``; equal shares where all information is 0.

    Example:
        >>> layer_weights({"a": 1.0, "b": 3.0}, base=1000, total=10000)
        {'a': 3500.0, 'b': 8500.0}
    """
    whole = sum(information.values())
    even = 1 / max(len(information), 1)
    return {
        layer: base + total * (value / whole if whole > 0 else even)
        for layer, value in information.items()
    }


def layer_tables(
    weights: Mapping[str, float], information: Information | None
) -> dict[str, tuple[Mapping[str, object], ...]]:
    """Return what a repair tells about its layers.

    Args:
        weights: By layer.
        information: What they came from; None where nothing was estimated.

    Returns:
        "layer weights", and the curve as "information" if there is one.
    """
    known = {} if information is None else information.values
    rows = tuple(
        {"layer": layer, "information": known.get(layer), "weight": weight}
        for layer, weight in weights.items()
    )
    tables: dict[str, tuple[Mapping[str, object], ...]] = {"layer weights": rows}
    if information is not None:
        tables["information"] = information.curve
    return tables


def estimate_information(
    encoder: nn.Module,
    data: ImageData,
    *,
    layers: Sequence[str],
    settings: Estimation = Estimation(),
    held_out: ImageData | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Information:
    """Estimate what the layers of an encoder tell about its features.

    One critic for each layer; all learn side by side from one pass over the images.
    The work is repeatable from its seed on one machine.

    Args:
        encoder: Maps images in [0, 1] to vectors; it is left as it was.
        data: Images; labels are not looked at.
        layers: Modules to look at.
        settings: The protocol.
        held_out: Images that the critics do not learn from.
        seed: Seeds the critics and the pairs.
        runtime: Where and how to run.

    Returns:
        The estimates and the curves.
    """
    shown, others = (
        None
        if images is None
        else Activations(
            encoder,
            images.images,
            layers=layers,
            pool=settings.pool,
            batch_size=settings.batch_size,
            runtime=runtime,
        )
        for images in (data, held_out)
    )
    assert shown is not None
    return fit_critics(
        shown, others, layers=layers, settings=settings, seed=seed, runtime=runtime
    )


def fit_critics(
    shown: Iterable[Shown],
    held_out: Iterable[Shown] | None,
    *,
    layers: Sequence[str],
    settings: Estimation,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> Information:
    """Train a critic for each layer on batches of activations and features.

    Args:
        shown: The batches; they are gone over again and again.
        held_out: Batches that the critics do not learn from.
        layers: Names of the layers, in the order that the batches have.
        settings: The protocol.
        seed: Seeds the critics and the pairs.
        runtime: Where to run.

    Returns:
        The estimates and the curves.
    """
    sets = {"": shown} if held_out is None else {"": shown, _HELD_OUT: held_out}
    critics = _critics(layers, shown, settings=settings, seed=seed, runtime=runtime)
    parameters = [p for critic in critics for p in critic.parameters()]
    adam = torch.optim.Adam(
        parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    rows: list[dict[str, float]] = []
    clipped: list[Tensor] = []
    for epoch in range(settings.epochs):
        stream = generator(seed, "information", epoch)
        for batch in shown:
            bounds = _bounds(critics, batch, clip=settings.clip, stream=stream)
            adam.zero_grad()
            (-bounds.sum()).backward()  # one critic's slope does not reach another
            adam.step()
        counts = epoch >= settings.epochs - _LAST
        if counts or epoch % _EVERY == 0:
            row = {"epoch": epoch + 1.0}
            for name, images in sets.items():
                raw = _values(critics, images, clip=settings.clip, stream=stream)
                told = [f"{layer}{name}" for layer in layers]
                row |= dict(zip(told, raw.mean(0).tolist(), strict=True))
                last = raw.nan_to_num(0.0).clamp(min=0).mean(0)
            rows.append(row)
            if counts:
                clipped.append(last)  # of the held-out images where there are some
        runtime.progress(
            Progress(stage="information", done=epoch + 1, total=settings.epochs)
        )
    values = torch.stack(clipped).mean(0).tolist()
    return Information(values=dict(zip(layers, values, strict=True)), curve=tuple(rows))


def _critics(
    layers: Sequence[str],
    shown: Iterable[Shown],
    *,
    settings: Estimation,
    seed: int,
    runtime: Runtime,
) -> list[Critic]:
    first = next(iter(shown))
    return [
        Critic(
            activations.shape[1],
            first.features.shape[1],
            hidden=settings.hidden,
            seed=generator(seed, "critic", layer).initial_seed(),
        ).to(runtime.device)
        for layer, activations in zip(layers, first.activations, strict=True)
    ]


def _bounds(
    critics: Sequence[Critic],
    batch: Shown,
    *,
    clip: float | None,
    stream: torch.Generator,
) -> Tensor:
    order = torch.randperm(len(batch.features), generator=stream)
    order = order.to(batch.features.device)
    return torch.stack(
        [
            donsker_varadhan(*critic(a, batch.features, order), clip=clip)
            for critic, a in zip(critics, batch.activations, strict=True)
        ]
    )


@torch.no_grad()
def _values(
    critics: Sequence[Critic],
    images: Iterable[Shown],
    *,
    clip: float | None,
    stream: torch.Generator,
) -> Float[Tensor, "batches layers"]:
    return torch.stack(
        [_bounds(critics, batch, clip=clip, stream=stream) for batch in images]
    )
