"""A denoiser made ready for whole sets: tiles of one shape, noise by image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bezoar.data import content_keys, to_uint8
from bezoar.errors import InputError
from bezoar.models import UNet, load_denoiser
from bezoar.models.diffusion import denoise
from bezoar.models.langevin import keyed_noise
from bezoar.purify.energy_chains import filled_up
from bezoar.purify.side_by_side import side_by_side
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, UInt8

_CPU_TILE, _DEVICE_TILE = 32, 1024  # images per kernel call, where nobody asks


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """A denoiser on one device.

    Attributes:
        net: A frozen copy of the network.
        dtype: Type that it computes in.
        tile: Images per kernel call.
        device: Where it runs.
    """

    net: UNet
    dtype: torch.dtype
    tile: int
    device: torch.device

    @classmethod
    def of(
        cls,
        net: UNet,
        *,
        channels: int,
        steps: int,
        runtime: Runtime,
        tile: int | None = None,
    ) -> Denoising:
        """Make a denoiser ready.

        Args:
            net: The network; it stays as it is.
            channels: Of the images.
            steps: Levels of noise that are asked of it.
            runtime: Where and how to run.
            tile: Images per kernel call, for a stage beside another one.

        Returns:
            The denoiser, ready.

        Raises:
            InputError: If it was trained on other channels or fewer levels.
        """
        if channels != net.in_channels or steps > net.num_levels:
            raise InputError(
                f"expected images of {net.in_channels} channels and at most "
                f"{net.num_levels} steps for this denoiser, got {channels} channels "
                f"and {steps} steps; train another one"
            )
        is_cpu = runtime.device.type == "cpu"
        frozen = copy.deepcopy(net).eval().requires_grad_(False)
        dtype = runtime.compute_dtype()
        return cls(
            net=frozen.to(runtime.device, dtype),
            dtype=dtype,
            tile=tile or (_CPU_TILE if is_cpu else _DEVICE_TILE),
            device=runtime.device,
        )

    def walk(
        self,
        states: Float[Tensor, "b c h w"],
        *,
        keys: Sequence[str],
        steps: int,
        seed: int,
        stream: str,
    ) -> Float[Tensor, "b c h w"]:
        """Noise a tile of images or fewer, and take the noise out again.

        Args:
            states: Images in [-1, 1], or chains that left it.
            keys: One name per image, for its noise.
            steps: Levels of noise.
            seed: The seed given.
            stream: Name of the stage, for its noise.

        Returns:
            The images.
        """
        drawn = keyed_noise(
            keys,
            shape=tuple(states.shape[1:]),
            seed=seed,
            stream=stream,
            device=self.device,
        )

        def guess(x: Tensor, levels: Tensor) -> Tensor:
            found: Tensor = self.net(x.to(self.dtype), levels)
            return found

        with torch.no_grad():
            ends = denoise(
                filled_up(states, self.tile),
                denoiser=guess,
                noise=(filled_up(z, self.tile) for z in drawn),
                steps=steps,
            )
        return ends[: len(states)]

    def redrawn(
        self,
        images: UInt8[Tensor, "n c h w"],
        *,
        steps: int,
        seed: int,
        report: Callable[[Progress], None],
    ) -> UInt8[Tensor, "n c h w"]:
        """Noise stored images, take the noise out again, and round them once.

        Args:
            images: Any number of images.
            steps: Levels of noise.
            seed: The seed given.
            report: Told after every tile.

        Returns:
            The images; each depends on nothing but what it showed.
        """

        def work(place: slice) -> Tensor:
            ends = self.walk(
                images[place].to(self.device).float() / 127.5 - 1,
                keys=content_keys(images[place]),
                steps=steps,
                seed=seed,
                stream="ddpm",
            )
            return to_uint8((ends + 1) / 2).cpu()

        found, total = torch.empty_like(images), len(images)
        tiles = [
            slice(first, min(first + self.tile, total))
            for first in range(0, total, self.tile)
        ]
        with side_by_side(work, tiles, device=self.device) as results:
            for place, found[place] in results:
                report(Progress(stage="purify", done=place.stop, total=total))
        return found


def denoiser_from(denoiser: UNet | str | Path | None) -> UNet:
    """Return a denoiser from what a user names.

    Args:
        denoiser: A network, or its file.

    Returns:
        The network.

    Raises:
        InputError: If none is named: none ships.
    """
    if denoiser is None:
        raise InputError(
            "expected a denoiser, got none; train one on images like these with "
            "`bezoar train-denoiser`"
        )
    return denoiser if isinstance(denoiser, UNet) else load_denoiser(denoiser)
