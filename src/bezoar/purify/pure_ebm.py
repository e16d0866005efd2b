"""PureEBM (Bhat et al., 2024, https://arxiv.org/abs/2405.19376).

Each image walks some hundred steps down an energy that was trained on images, pushed
about by noise. Walks of this length keep what an image shows and draw its fine detail
anew, and with it the detail that an attacker put in. Called EBM in PureGen (NeurIPS
2024, https://arxiv.org/abs/2405.18627), whose settings these are.
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
from bezoar.models.energy import EnergyNet
from bezoar.models.langevin import Walk
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
from bezoar.shapes import UInt8

_STREAM = "langevin"


@dataclass(frozen=True, kw_only=True)
class PureEBM:
    """Redraws the fine detail of images by a walk down an energy, and poison with it.

    For training images, once; test images stay as they are. Each image is treated by
    itself: its noise is keyed by what it shows.

    Attributes:
        steps: Langevin steps (T in the paper): 150 before training from scratch.
        step_size: Deviation of a step's noise (epsilon), in units of [-1, 1].
        temperature: Divides the energy (tau).

    Example:
        >>> from bezoar.data import noise_images
        >>> net = EnergyNet(num_filters=4, image_size=(8, 8))
        >>> done = PureEBM(steps=2).purify(noise_images(3), energy=net)
        >>> done.data.images.shape, sorted(done.columns)[:2]
        (torch.Size([3, 3, 8, 8]), ['brightness_after', 'brightness_before'])
    """

    steps: int = 150
    step_size: float = 0.0125
    temperature: float = 1e-4

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.step_size > 0 and self.temperature > 0):
            raise InputError(
                "expected steps of at least 1, step_size and temperature above 0, got "
                f"{self.steps}, {self.step_size} and {self.temperature}; raise them"
            )

    @classmethod
    def linear_transfer(cls) -> PureEBM:
        """Return the settings for a linear layer trained on frozen features.

        Returns:
            500 steps with more drift, for stronger poison.
        """
        return cls(steps=500, temperature=7.5e-5)

    @classmethod
    def fine_tune(cls) -> PureEBM:
        """Return the settings for fine-tuning a network that was trained elsewhere.

        Returns:
            1000 steps.
        """
        return cls(steps=1000)

    @property
    def walk(self) -> Walk:
        """The numbers of the chains."""
        return Walk(step_size=self.step_size, temperature=self.temperature)

    def purify(
        self,
        data: ImageData,
        *,
        energy: EnergyNet | str | Path = "cifar10-nf32",
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Purification:
        """Purify images; labels are not looked at.

        Args:
            data: The images.
            energy: A network, the name of one that ships, or its file; trained on
                images like these.
            seed: Seeds the noise, one stream per image content.
            runtime: Where and how to run.

        Returns:
            The purified images; with the columns of every purifier
            "energy_before" and "energy_after", "clipped_rate" (share of the values
            that ended outside of [0, 1]), and "unlike_training" (1 for an image whose
            energy before lay outside that of 98 % of the network's clean images).
        """
        start = time.perf_counter()
        net = energy_from(energy)
        channels, height, width = data.images.shape[1:]
        shape = (int(channels), int(height), int(width))
        chains = Chains.of(net, image_shape=shape, runtime=runtime)
        images, rows = torch.empty_like(data.images), []
        work = partial(self._purified, stored=data.images, chains=chains, seed=seed)
        with side_by_side(
            work, list(chains.tiles(len(data))), device=chains.device
        ) as results:
            for place, (after, figures) in results:
                images[place] = after
                rows.append(figures)
                done = place.stop
                runtime.progress(Progress(stage="purify", done=done, total=len(data)))
        columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        columns["unlike_training"] = unlike_training(columns["energy_before"], net)
        _check_changed(data, images, method=self)
        return packed(
            data,
            images,
            method=self,
            seed=seed,
            seconds=time.perf_counter() - start,
            columns=columns,
            networks={"energy": net},
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
            name="pure-ebm",
            summary=(
                f"{len(rows.ids):,} images walked {self.steps} steps down the energy; "
                f"{change_in_words(rows.columns)}. This redraws fine detail, and faint "
                "patterns with it; smooth or strong ones may stay. It does not tell "
                "whether there was poison: any noise raises the energy of an image."
            ),
            class_names=class_names,
            seed=seed,
            seconds=seconds,
            forwards_per_image=2 * self.steps + 2,
            health=foreign(rows.columns),
        )

    def _purified(
        self,
        place: slice,
        *,
        stored: UInt8[Tensor, "n c h w"],
        chains: Chains,
        seed: int,
    ) -> tuple[UInt8[Tensor, "b c h w"], dict[str, Tensor]]:
        stored = stored[place]
        begins = stored.to(chains.device).float() / 127.5 - 1
        ends = chains.walk(
            begins,
            keys=content_keys(stored),
            steps=self.steps,
            walk=self.walk,
            seed=seed,
            stream=_STREAM,
        )
        after = to_uint8((ends + 1) / 2).cpu()
        shown = after.to(chains.device).float() / 127.5 - 1
        return after, {
            "energy_before": chains.energies(begins).cpu(),
            "energy_after": chains.energies(shown).cpu(),
            "clipped_rate": (ends.abs() > 1).float().flatten(1).mean(1).cpu(),
        }


def _check_changed(data: ImageData, images: Tensor, *, method: PureEBM) -> None:
    moved = (images != data.images).flatten(1).any(1)
    if not moved.all():
        place = int((~moved).nonzero()[0])
        raise InputError(
            f"expected {method.steps} steps to change every image, got "
            f"{data.ids[place]!r} as it was; raise step_size ({method.step_size}) or "
            "steps"
        )
