"""Langevin chains for whole sets: tiles of one shape, so that company is no matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from bezoar.errors import DivergedError, InputError
from bezoar.models.energy import EnergyNet, FoldedEnergy
from bezoar.models.energy_files import load_energy
from bezoar.models.langevin import Walk, keyed_noise, langevin
from bezoar.runtime import Runtime
from bezoar.shapes import Float

# Images per kernel call: one shape, so one result at any batch size.
_CPU_TILE, _DEVICE_TILE, _LEAST_TILE = 64, 1024, 16
_TILE_AREA = 32 * 32  # pixels of an image at which a device's tile is that large
_FOREIGN = (
    "{:.0f} % of the images have energies that 98 % of the network's own clean images "
    "do not have: it may not know images like these; train one on them with "
    "`bezoar train-energy`"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Chains:
    """An energy made ready for chains on one device.

    Attributes:
        layers: In the type that the runtime computes in; its slopes drive the chains.
        exact: In float32, for the energies that are shown.
        in_squares: Whether the state of a chain lies as the first layer takes it, from
            the first step to the last; False where sides are filled up.
        scale: Corrects slopes for the size of the images.
        tile: Images per kernel call.
        device: Where the chains run.
    """

    layers: FoldedEnergy
    exact: FoldedEnergy
    in_squares: bool
    scale: float
    tile: int
    device: torch.device

    @classmethod
    def of(
        cls, net: EnergyNet, *, image_shape: tuple[int, int, int], runtime: Runtime
    ) -> Chains:
        """Make an energy ready.

        Args:
            net: The energy; it stays as it is.
            image_shape: Channels, height and width of the images.
            runtime: Where and how to run.

        Returns:
            The energy, ready.

        Raises:
            InputError: If the images do not fit the network.
        """
        channels, height, width = image_shape
        least = 8 * net.patch_size
        if channels != net.in_channels or min(height, width) < least:
            raise InputError(
                f"expected images of {net.in_channels} channels and at least "
                f"{least}x{least} pixels for this energy, got {channels} channels of "
                f"{height}x{width}; train one with `bezoar train-energy`"
            )
        fitting = _DEVICE_TILE * _TILE_AREA // (height * width)
        on_cpu = runtime.device.type == "cpu"
        return cls(
            layers=net.folded(runtime.compute_dtype()).detached(runtime.device),
            exact=net.folded().detached(runtime.device),
            in_squares=not (height % (least // 2) or width % (least // 2)),
            scale=net.drift_scale(height, width),
            tile=_CPU_TILE if on_cpu else max(_LEAST_TILE, fitting),
            device=runtime.device,
        )

    def slope(self, states: Tensor) -> Tensor:
        """Return the slopes that drive a chain, corrected for the size.

        Args:
            states: Where the chains are, in their layout.

        Returns:
            The slopes.
        """
        slope = self.layers.slope(states, in_squares=self.in_squares)
        return slope if self.scale == 1 else slope * self.scale

    def energies(self, states: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return energies in float32.

        Args:
            states: Images in [-1, 1], at most a tile of them.

        Returns:
            One energy per image.
        """
        with torch.no_grad():
            filled = filled_up(states, self.tile)
            return self.exact(filled)[: len(states)]

    def walk(
        self,
        states: Float[Tensor, "b c h w"],
        *,
        keys: Sequence[str],
        steps: int,
        walk: Walk,
        seed: int,
        stream: str,
    ) -> Float[Tensor, "b c h w"]:
        """Run chains from a tile of images or fewer.

        Args:
            states: Where the chains start, in [-1, 1].
            keys: One name per image, for its noise.
            steps: How many steps.
            walk: Step size and temperature.
            seed: The seed given.
            stream: Name of the stage, for its noise.

        Returns:
            Where the chains end.
        """
        (ends,) = self.trace(
            states, keys=keys, grid=(steps,), walk=walk, seed=seed, stream=stream
        )
        return ends

    def trace(
        self,
        states: Float[Tensor, "b c h w"],
        *,
        keys: Sequence[str],
        grid: Sequence[int],
        walk: Walk,
        seed: int,
        stream: str,
    ) -> Iterator[Float[Tensor, "b c h w"]]:
        """Run chains and show them on the way.

        Args:
            states: Where the chains start, in [-1, 1]; a tile or fewer.
            keys: One name per image, for its noise.
            grid: After how many steps to show them, rising.
            walk: Step size and temperature.
            seed: The seed given.
            stream: Name of the stage, for its noise.

        Yields:
            Where the chains are.

        Raises:
            DivergedError: If a chain is not finite.
        """
        count = len(states)
        states = filled_up(states, self.tile)
        if self.in_squares:
            states = self.layers.squares(states)
        noise = self.noise(
            keys, shape=tuple(states.shape[1:]), seed=seed, stream=stream
        )
        for done, steps in pairwise((0, *grid)):
            states = langevin(
                states, slope=self.slope, noise=noise, steps=steps - done, walk=walk
            )
            if not states.isfinite().all():
                raise DivergedError(
                    f"expected finite chains, got NaN or infinity within {steps} "
                    f"steps; lower step_size ({walk.step_size}) or raise temperature "
                    f"({walk.temperature})"
                )
            shown = states[:count]
            yield self.layers.images(shown) if self.in_squares else shown

    def noise(
        self, keys: Sequence[str], *, shape: tuple[int, ...], seed: int, stream: str
    ) -> Iterator[Tensor]:
        """Draw the noise of a tile of chains in their layout, one stream per image.

        That of squares is drawn as they lie in memory, channels last: to rearrange it
        would take more than half as long as to draw it.

        Args:
            keys: One name per image, at most a tile of them.
            shape: Of a state of a chain.
            seed: The seed given.
            stream: Name of the stage.

        Yields:
            Noise of one step for a whole tile, for ever.
        """
        channels, *sides = shape
        drawn = keyed_noise(
            keys,
            shape=(*sides, channels) if self.in_squares else shape,
            seed=seed,
            stream=stream,
            device=self.device,
        )
        for z in drawn:
            # Copies that fill a tile share the noise of the last image; unseen.
            filled = filled_up(z, self.tile)
            yield filled.movedim(3, 1) if self.in_squares else filled

    def tiles(self, count: int) -> Iterator[slice]:
        """Cut a set into tiles.

        Args:
            count: How many images there are.

        Yields:
            Places of at most ``tile`` images.
        """
        for first in range(0, count, self.tile):
            yield slice(first, min(first + self.tile, count))


def energy_from(energy: EnergyNet | str | Path) -> EnergyNet:
    """Return an energy network from what a user names.

    Args:
        energy: A network, the name of one that ships, or a file.

    Returns:
        The network.
    """
    return energy if isinstance(energy, EnergyNet) else load_energy(energy)


def unlike_training(energies: Float[Tensor, " n"], net: EnergyNet) -> Tensor:
    """Return which images have energies that clean images of a network do not have.

    Args:
        energies: Of the images as they were given.
        net: The network; its card knows the energies of 98 % of its clean images.

    Returns:
        1 for an image outside of them, else 0; 0 where the card does not tell.
    """
    quantiles = net.card.get("clean_quantiles")
    if not isinstance(quantiles, dict):
        return torch.zeros_like(energies)
    low, high = quantiles["0.01"], quantiles["0.99"]
    outside: Tensor = ((energies < low) | (energies > high)).float()
    return outside


def foreign(columns: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return a warning where a network does not seem to know the images.

    Args:
        columns: Those of the method, "unlike_training" among them.

    Returns:
        A sentence, or nothing.
    """
    unlike = columns["unlike_training"].mean().item()
    return (_FOREIGN.format(100 * unlike),) if unlike > 0.5 else ()


def filled_up(states: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "s c h w"]:
    """Return a batch of one size, filled up with copies of its last image.

    Args:
        states: At most ``size`` images.
        size: Images wanted.

    Returns:
        The batch.
    """
    missing = size - len(states)
    if missing == 0:
        return states
    return torch.cat([states, states[-1:].expand(missing, -1, -1, -1)])
