"""Walks down an energy and a denoiser in turns (PureGen's Naive and Reps).

Bhat et al., NeurIPS 2024, https://arxiv.org/abs/2405.18627, section 3.3: T = (energy
steps, denoiser steps, repeats). Between the stages images stay as they are computed;
they are clamped and rounded once, at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bezoar.data import ImageData, content_keys, to_uint8
from bezoar.errors import InputError
from bezoar.models import EnergyNet, UNet
from bezoar.models.langevin import Walk
from bezoar.purify.denoising import Denoising, denoiser_from
from bezoar.purify.energy_chains import Chains, energy_from
from bezoar.purify.packing import change_in_words, packed, reported
from bezoar.purify.side_by_side import side_by_side
from bezoar.results import Purification, PurificationReport, Scores
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import UInt8

_WALK = Walk()


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Walks images down an energy, denoises them, and does so again if asked to.

    Each stage of each repeat draws noise of its own. For training images, once.

    Attributes:
        energy_steps: Langevin steps of a repeat (T_EBM).
        denoiser_steps: Levels of noise of a repeat (T_DDPM).
        num_repeats: How often (T_reps).

    Example:
        >>> from bezoar.data import noise_images
        >>> nets = {
        ...     "energy": EnergyNet(num_filters=2, image_size=(8, 8)),
        ...     "denoiser": UNet(channels=(4, 4), num_blocks=1),
        ... }
        >>> method = Chain(energy_steps=2, denoiser_steps=2, num_repeats=2)
        >>> method.purify(noise_images(3), **nets).data.images.shape
        torch.Size([3, 3, 8, 8])
    """

    energy_steps: int = 150
    denoiser_steps: int = 75
    num_repeats: int = 1

    def __post_init__(self) -> None:
        if min(self.energy_steps, self.denoiser_steps, self.num_repeats) < 1:
            raise InputError(
                "expected energy_steps, denoiser_steps and num_repeats of at least 1, "
                f"got {self.energy_steps}, {self.denoiser_steps} and "
                f"{self.num_repeats}; raise them, or take pure-ebm or pure-ddpm alone"
            )

    @classmethod
    def repeated(cls) -> Chain:
        """Return PureGen's Reps, for much poison: short stages, five times.

        Returns:
            (10, 50, 5).
        """
        return cls(energy_steps=10, denoiser_steps=50, num_repeats=5)

    def purify(
        self,
        data: ImageData,
        *,
        energy: EnergyNet | str | Path = "cifar10-nf32",
        denoiser: UNet | str | Path | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Purification:
        """Purify images; labels are not looked at.

        Args:
            data: The images.
            energy: As for ``PureEBM``.
            denoiser: As for ``PureDDPM``; none ships.
            seed: Seeds the noise, one stream per image content and stage.
            runtime: Where and how to run.

        Returns:
            The purified images.
        """
        start = time.perf_counter()
        walker, cleaner = energy_from(energy), denoiser_from(denoiser)
        chains, denoising = self._ready(data, walker, cleaner, runtime)
        images = torch.empty_like(data.images)
        work = partial(
            self._purified,
            stored=data.images,
            chains=chains,
            denoising=denoising,
            seed=seed,
        )
        with side_by_side(
            work, list(chains.tiles(len(data))), device=chains.device
        ) as results:
            for place, purified in results:
                images[place], done = purified, place.stop
                runtime.progress(Progress(stage="purify", done=done, total=len(data)))
        return packed(
            data,
            images,
            method=self,
            seed=seed,
            seconds=time.perf_counter() - start,
            networks={"energy": walker, "denoiser": cleaner},
        )

    def conclude(
        self,
        rows: Scores,
        *,
        class_names: tuple[str, ...],
        seed: int,
        seconds: float,
    ) -> PurificationReport:
        """Return the report on all images.

        Args:
            rows: The columns of all images.
            class_names: Names by class index.
            seed: The seed given.
            seconds: Wall-clock time of the work.

        Returns:
            The report.
        """
        return reported(
            rows,
            method=self,
            name="chain",
            summary=(
                f"{len(rows.ids):,} images walked {self.energy_steps} steps down the "
                f"energy and were denoised from level {self.denoiser_steps}, "
                f"{self.num_repeats} times; {change_in_words(rows.columns)}. It does "
                "not tell whether there was poison."
            ),
            class_names=class_names,
            seed=seed,
            seconds=seconds,
            forwards_per_image=self.num_repeats
            * (2.0 * self.energy_steps + self.denoiser_steps),
        )

    def _purified(
        self,
        place: slice,
        *,
        stored: UInt8[Tensor, "n c h w"],
        chains: Chains,
        denoising: Denoising,
        seed: int,
    ) -> UInt8[Tensor, "b c h w"]:
        keys = content_keys(stored[place])
        states = stored[place].to(chains.device).float() / 127.5 - 1
        for repeat in range(self.num_repeats):
            again = f" {repeat}" if repeat else ""
            states = chains.walk(
                states,
                keys=keys,
                steps=self.energy_steps,
                walk=_WALK,
                seed=seed,
                stream=f"langevin{again}",
            )
            states = denoising.walk(
                states,
                keys=keys,
                steps=self.denoiser_steps,
                seed=seed,
                stream=f"ddpm{again}",
            )
        return to_uint8((states + 1) / 2).cpu()

    def _ready(
        self, data: ImageData, energy: EnergyNet, denoiser: UNet, runtime: Runtime
    ) -> tuple[Chains, Denoising]:
        channels, height, width = (int(side) for side in data.images.shape[1:])
        chains = Chains.of(
            energy, image_shape=(channels, height, width), runtime=runtime
        )
        denoising = Denoising.of(
            denoiser,
            channels=channels,
            steps=self.denoiser_steps,
            tile=chains.tile,
            runtime=runtime,
        )
        return chains, denoising
