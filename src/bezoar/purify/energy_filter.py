"""Denoises only the images of the highest energy (PureGen's Filt).

Bhat et al., NeurIPS 2024, https://arxiv.org/abs/2405.18627, section 3.3: T = (0, 125,
1) and k = 0.5. The energies are those of the images as they were given. In the official
code the images that are left alone had been purified before, the poison among them, so
that the published numbers are better than the method.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models import EnergyNet, UNet
from bezoar.purify.denoising import Denoising, denoiser_from
from bezoar.purify.energy_chains import (
    Chains,
    energy_from,
    foreign,
    unlike_training,
)
from bezoar.purify.packing import change_in_words, packed, reported
from bezoar.purify.side_by_side import side_by_side
from bezoar.results import Purification, PurificationReport, Scores
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, UInt8

_QUIET = Runtime().progress


@dataclass(frozen=True, kw_only=True)
class EnergyFilter:
    """Denoises the images of the highest energy, and leaves all others as they are.

    For training images, once. Whether an image is treated depends on the other images:
    all are ranked first. What becomes of it then does not.

    Attributes:
        denoiser_steps: Levels of noise of the images that are purified (T_DDPM).
        purify_rate: Share of the images that is purified (k), the most energetic ones;
            among equal energies the ids decide.

    Example:
        >>> from bezoar.data import noise_images
        >>> nets = {
        ...     "energy": EnergyNet(num_filters=2, image_size=(8, 8)),
        ...     "denoiser": UNet(channels=(4, 4), num_blocks=1),
        ... }
        >>> done = EnergyFilter(denoiser_steps=2).purify(noise_images(4), **nets)
        >>> int(done.columns["purified"].sum())
        2
    """

    denoiser_steps: int = 125
    purify_rate: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.denoiser_steps <= 1000:
            raise InputError(
                f"expected denoiser_steps from 1 to 1000, got {self.denoiser_steps}; "
                "such as 125"
            )
        if not 0 < self.purify_rate <= 1:
            raise InputError(
                f"expected purify_rate above 0 and at most 1, got {self.purify_rate}; "
                "it is a share of the images"
            )

    def score(
        self,
        data: ImageData,
        *,
        energy: EnergyNet | str | Path = "cifar10-nf32",
        denoiser: UNet | str | Path | None = None,
        runtime: Runtime = Runtime(),
    ) -> Scores:
        """Return the energies of some images, in float32.

        Args:
            data: The images.
            energy: As for ``purify``.
            denoiser: As for ``purify``; one that is missing is told before the work.
            runtime: Where and how to run.

        Returns:
            The column "energy_before".
        """
        denoiser_from(denoiser)
        chains = _ready(data, energy_from(energy), runtime)
        return _scores(data, chains, report=runtime.progress)

    def select(self, scores: Scores) -> frozenset[str]:
        """Return the images to purify.

        Args:
            scores: What ``score`` returned, of all images.

        Returns:
            The ids of the most energetic ones: ``purify_rate`` of all, rounded.

        Raises:
            DivergedError: If an energy is not finite.
            InputError: If the share leaves no image to purify.
        """
        energies = scores.columns["energy_before"]
        if not energies.isfinite().all():
            place = int((~energies.isfinite()).nonzero()[0])
            raise DivergedError(
                f"expected finite energies, got {energies[place].item()} for "
                f"{scores.ids[place]!r}; give an energy that was trained to its end"
            )
        count = int(self.purify_rate * len(energies) + 0.5)
        if count < 1:
            raise InputError(
                f"expected a share that holds an image, got {self.purify_rate} of "
                f"{len(energies)}; raise purify_rate or give more images"
            )
        # One sort by two keys, of which torch does not know the text.
        ranked = sorted(zip((-energies).tolist(), scores.ids, strict=True))
        return frozenset(id_ for _, id_ in ranked[:count])

    def purify(
        self,
        data: ImageData,
        *,
        energy: EnergyNet | str | Path = "cifar10-nf32",
        denoiser: UNet | str | Path | None = None,
        only: Set[str] | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Purification:
        """Purify the most energetic images; labels are not looked at.

        Args:
            data: All images: they are ranked among each other.
            energy: As for ``PureEBM``; it ranks, and no image walks down it.
            denoiser: As for ``PureDDPM``, whose noise is drawn; none ships.
            only: Ids of the images to purify, where ``data`` is a part of a set that
                was ranked as a whole; None ranks ``data``.
            seed: Seeds the noise, one stream per image content.
            runtime: Where and how to run.

        Returns:
            The images; with the columns of every purifier "purified" (1 for those that
            were denoised, 0 for those that are as they were), "energy_before",
            "energy_after" and "unlike_training" (as of ``PureEBM``).
        """
        start = time.perf_counter()
        net, cleaner = energy_from(energy), denoiser_from(denoiser)
        denoising = Denoising.of(
            cleaner,
            channels=data.images.shape[1],
            steps=self.denoiser_steps,
            runtime=runtime,
        )
        chains = _ready(data, net, runtime)
        report = runtime.progress if only is None else _QUIET
        scores = _scores(data, chains, report=report)
        chosen = self.select(scores) if only is None else only
        purified = torch.tensor([id_ in chosen for id_ in data.ids])
        images, before = data.images.clone(), scores.columns["energy_before"]
        images[purified] = denoising.redrawn(
            images[purified],
            steps=self.denoiser_steps,
            seed=seed,
            report=runtime.progress,
        )
        after = before.clone()
        after[purified] = _energies(images[purified], chains, report=_QUIET)
        seconds = time.perf_counter() - start
        return packed(
            data,
            images,
            method=self,
            seed=seed,
            seconds=seconds,
            columns={
                "purified": purified.float(),
                "energy_before": before,
                "energy_after": after,
                "unlike_training": unlike_training(before, net),
            },
            networks={"energy": net, "denoiser": cleaner},
            conclude=partial(
                self.conclude if only is None else self._reported,
                class_names=data.class_names,
                seed=seed,
                seconds=seconds,
            ),
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

        Raises:
            InputError: If no image that was to be purified changed.
        """
        purified = rows.columns["purified"] > 0
        if not (rows.columns["max_change"][purified] > 0).any():
            raise InputError(
                f"expected {self.denoiser_steps} levels of noise to change images, got "
                f"all {int(purified.sum()):,} as they were; give a denoiser that was "
                "trained on images like these"
            )
        return self._reported(rows, class_names=class_names, seed=seed, seconds=seconds)

    def _reported(
        self,
        rows: Scores,
        *,
        class_names: tuple[str, ...],
        seed: int,
        seconds: float,
    ) -> PurificationReport:
        share = rows.columns["purified"].mean().item()
        return reported(
            rows,
            method=self,
            name="energy-filter",
            summary=(
                f"{int(rows.columns['purified'].sum()):,} of {len(rows.ids):,} images, "
                f"those of the highest energy, were noised to level "
                f"{self.denoiser_steps} and denoised; {change_in_words(rows.columns)}. "
                "All others are as they were, with whatever is in them: a high energy "
                "is no evidence of poison, and a low one none of its absence."
            ),
            class_names=class_names,
            seed=seed,
            seconds=seconds,
            forwards_per_image=1 + share * (self.denoiser_steps + 1),
            health=foreign(rows.columns),
        )


def _ready(data: ImageData, net: EnergyNet, runtime: Runtime) -> Chains:
    channels, height, width = (int(side) for side in data.images.shape[1:])
    return Chains.of(net, image_shape=(channels, height, width), runtime=runtime)


def _scores(
    data: ImageData, chains: Chains, *, report: Callable[[Progress], None]
) -> Scores:
    found = _energies(data.images, chains, report=report)
    columns = {"energy_before": found}
    return Scores(ids=data.ids, labels=data.labels, columns=columns)


def _energies(
    images: UInt8[Tensor, "n c h w"],
    chains: Chains,
    *,
    report: Callable[[Progress], None],
) -> Float[Tensor, " n"]:
    def energies(place: slice) -> Tensor:
        states = images[place].to(chains.device).float() / 127.5 - 1
        return chains.energies(states).cpu()

    found, tiles = torch.empty(len(images)), list(chains.tiles(len(images)))
    with side_by_side(energies, tiles, device=chains.device) as results:
        for place, found[place] in results:
            report(Progress(stage="rank", done=place.stop, total=len(images)))
    return found
