"""How many steps a walk needs: where half of a pattern is gone.

PureEBM's figure 3 (https://arxiv.org/abs/2405.19376) follows three distances along the
walk: from the clean image to where it ends, d1; from the clean image to where the
poisoned one ends, d2; and from the poisoned image to where it ends, d3. Steps are
enough where d3 rises above d2. If the poisoned image ends at x + s delta + noise, that
is where s falls below one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.checks import check_images
from bezoar.data import content_keys
from bezoar.errors import InputError
from bezoar.models.energy import EnergyNet
from bezoar.models.langevin import Walk
from bezoar.purify.energy_chains import Chains, energy_from
from bezoar.purify.side_by_side import side_by_side
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, UInt8

GRID = (25, 50, 75, 100, 150, 200, 250, 300, 400, 500)
_PSNR_FLOOR = 24.0  # dB; noise alone leaves 22.3 after 150 steps
_PERIODS, _COARSE = 6, 4
_WALK = Walk()


@dataclass(frozen=True, kw_only=True)
class StepCurve:
    """What walks of several lengths leave of patterns and of images.

    Attributes:
        steps: The lengths.
        psnr: Of purified clean images against themselves by length, in dB.
        clean: d1 by length; mean Euclidean distances in units of [-1, 1].
        to_clean: d2 by length, for each pattern.
        to_poisoned: d3 by length, for each pattern.
        survival: Share of the pattern's length that is left, by length of the walk,
            for each pattern.
        crossings: The first length at which d3 exceeds d2, for each pattern; None
            where none does.
        recommended: The longest of these with images above 24 dB; None if there is
            none.
        summary: What to do, in a sentence or two.
    """

    steps: tuple[int, ...]
    psnr: tuple[float, ...]
    clean: tuple[float, ...]
    to_clean: dict[str, tuple[float, ...]]
    to_poisoned: dict[str, tuple[float, ...]]
    survival: dict[str, tuple[float, ...]]
    crossings: dict[str, int | None]
    recommended: int | None
    summary: str


def calibrate_steps(
    images: UInt8[Tensor, "n c h w"],
    *,
    energy: EnergyNet | str | Path = "cifar10-nf32",
    eps: float = 8 / 255,
    grid: Sequence[int] = GRID,
    walk: Walk = _WALK,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> StepCurve:
    """Measure what walks of several lengths leave of three kinds of patterns.

    Args:
        images: Clean images, some dozens; take those you trust most.
        energy: As for ``PureEBM.purify``.
        eps: Height of the patterns in units of [0, 1].
        grid: Lengths to try, rising.
        walk: Step size and temperature.
        seed: Seeds patterns and noise.
        runtime: Where and how to run.

    Returns:
        The curves, and the length to take.

    Raises:
        InputError: If the lengths do not rise from 1 on, or eps is not in (0, 1).

    Example:
        >>> from bezoar.data import noise_images
        >>> net = EnergyNet(num_filters=4, image_size=(8, 8))
        >>> curve = calibrate_steps(noise_images(2).images, energy=net, grid=(1, 2))
        >>> sorted(curve.crossings)
        ['low frequency', 'sign', 'sinusoid']
    """
    check_images(images)
    if not (0 < eps < 1) or list(grid) != sorted(set(grid)) or min(grid) < 1:
        raise InputError(
            f"expected eps between 0 and 1 and rising lengths from 1 on, got {eps} and "
            f"{tuple(grid)}; correct them"
        )
    net = energy_from(energy)
    channels, height, width = (int(side) for side in images.shape[1:])
    chains = Chains.of(net, image_shape=(channels, height, width), runtime=runtime)
    clean = images.float() / 127.5 - 1
    keys = content_keys(images)
    starts = {"clean": clean} | {
        name: (clean + 2 * eps * pattern).clamp(-1, 1)
        for name, pattern in probes(clean.shape, keys=keys, seed=seed).items()
    }
    paths = _paths(
        starts,
        chains=chains,
        keys=keys,
        grid=grid,
        walk=walk,
        seed=seed,
        report=runtime.progress,
    )
    return _curve(starts, paths, grid=tuple(grid))


def probes(
    shape: Sequence[int], *, keys: Sequence[str], seed: int
) -> dict[str, Float[Tensor, "n c h w"]]:
    """Return three kinds of patterns of height 1, one of each per image.

    Args:
        shape: Of the images.
        keys: Their content keys; each has a stream of its own.
        seed: Seeds the patterns.

    Returns:
        "sign" (a random sign per value), "low frequency" (the sign of a smooth random
        field), and "sinusoid" (six waves over the width).
    """
    _, channels, height, width = shape
    streams = [generator(seed, "probe", key) for key in keys]
    fine = [torch.randn(channels, height, width, generator=g) for g in streams]
    coarse = [torch.randn(channels, _COARSE, _COARSE, generator=g) for g in streams]
    smooth = functional.interpolate(
        torch.stack(coarse), size=(height, width), mode="bicubic", align_corners=False
    )
    turns = 2 * math.pi * _PERIODS * torch.arange(width) / width
    waves = turns.sin().expand(len(keys), channels, height, width)
    return {
        "sign": torch.stack(fine).sign(),
        "low frequency": smooth.sign(),
        "sinusoid": waves.contiguous(),
    }


def _paths(
    starts: dict[str, Tensor],
    *,
    chains: Chains,
    keys: Sequence[str],
    grid: Sequence[int],
    walk: Walk,
    seed: int,
    report: Callable[[Progress], None],
) -> dict[str, list[Tensor]]:
    def shown(tile: tuple[str, slice]) -> list[Tensor]:
        name, place = tile
        path = chains.trace(
            starts[name][place].to(chains.device),
            keys=keys[place],
            grid=grid,
            walk=walk,
            seed=seed,
            stream="langevin",
        )
        return [states.cpu() for states in path]

    parts: dict[str, list[list[Tensor]]] = {name: [] for name in starts}
    tiles = [(name, place) for name in starts for place in chains.tiles(len(keys))]
    with side_by_side(shown, tiles, device=chains.device) as results:
        for (name, place), path in results:
            parts[name].append(path)
            if place.stop == len(keys):
                done = sum(map(bool, parts.values()))
                report(Progress(stage="calibrate", done=done, total=len(starts)))
    return {
        name: [torch.cat(states) for states in zip(*found, strict=True)]
        for name, found in parts.items()
    }


def _curve(
    starts: dict[str, Tensor], paths: dict[str, list[Tensor]], *, grid: tuple[int, ...]
) -> StepCurve:
    clean, ends = starts["clean"], paths["clean"]
    squares = [(end.clamp(-1, 1) - clean).square().flatten(1).mean(1) for end in ends]
    psnr = tuple((-10 * (each / 4).log10()).mean().item() for each in squares)
    names = [name for name in starts if name != "clean"]
    to_clean = {name: _distances(paths[name], clean) for name in names}
    to_poisoned = {name: _distances(paths[name], starts[name]) for name in names}
    survival = {
        name: tuple(
            surviving(start=starts[name] - clean, end=end - twin).mean().item()
            for end, twin in zip(paths[name], ends, strict=True)
        )
        for name in names
    }
    crossings = {
        name: next(
            (
                steps
                for steps, near, far in zip(
                    grid, to_clean[name], to_poisoned[name], strict=True
                )
                if far > near
            ),
            None,
        )
        for name in names
    }
    good = {
        steps for steps, value in zip(grid, psnr, strict=True) if value >= _PSNR_FLOOR
    }
    usable = [steps for steps in crossings.values() if steps in good]
    recommended = max((steps for steps in usable if steps), default=None)
    return StepCurve(
        steps=grid,
        psnr=psnr,
        clean=_distances(ends, clean),
        to_clean=to_clean,
        to_poisoned=to_poisoned,
        survival=survival,
        crossings=crossings,
        recommended=recommended,
        summary=_in_words(crossings, recommended),
    )


def surviving(
    *, start: Float[Tensor, "n c h w"], end: Float[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Return which share of a pattern's length a walk left.

    Args:
        start: The pattern that was added, poisoned less clean images.
        end: What the same walks, under the same noise, ended apart.

    Returns:
        Lengths of ``end`` over those of ``start``; 1 without an energy.
    """
    left: Tensor = end.flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)
    return left


def _distances(ends: Sequence[Tensor], begin: Tensor) -> tuple[float, ...]:
    return tuple((end - begin).flatten(1).norm(dim=1).mean().item() for end in ends)


def _in_words(crossings: dict[str, int | None], recommended: int | None) -> str:
    never = [name for name, steps in crossings.items() if steps is None]
    left = f" Of {' and '.join(never)} patterns more than half stays." if never else ""
    if recommended is None:
        return (
            "No length of the grid takes half of a pattern and leaves images above "
            f"{_PSNR_FLOOR:.0f} dB.{left} Train the energy longer, or on images like "
            "these."
        )
    return f"Take {recommended} steps.{left}"
