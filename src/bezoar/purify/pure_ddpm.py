"""PureDDPM (Bhat et al., NeurIPS 2024, https://arxiv.org/abs/2405.18627).

Each image is drowned in a little noise, and a diffusion model that was trained on
little noise takes it out again, and with it what an attacker put in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.models import UNet
from bezoar.purify.denoising import Denoising, denoiser_from
from bezoar.purify.packing import change_in_words, packed, reported
from bezoar.results import Purification, PurificationReport, Scores
from bezoar.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class PureDDPM:
    """Noises images a little and takes the noise out again, and poison with it.

    For training images, once; test images stay as they are. Each image is treated by
    itself: its noise is keyed by what it shows.

    Attributes:
        steps: Levels of noise, of 1000 (T in the paper): 75 before training from
            scratch, 125 before transfer.

    Example:
        >>> from bezoar.data import noise_images
        >>> net = UNet(channels=(4, 4), num_blocks=1)
        >>> done = PureDDPM(steps=2).purify(noise_images(3), denoiser=net)
        >>> done.data.images.shape
        torch.Size([3, 3, 8, 8])
    """

    steps: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise InputError(
                f"expected steps from 1 to 1000, got {self.steps}; such as 75"
            )

    @classmethod
    def transfer(cls) -> PureDDPM:
        """Return the settings for transfer learning.

        Returns:
            125 steps.
        """
        return cls(steps=125)

    def purify(
        self,
        data: ImageData,
        *,
        denoiser: UNet | str | Path | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Purification:
        """Purify images; labels are not looked at.

        Args:
            data: The images.
            denoiser: A network, or its file; trained on images like these. None ships.
            seed: Seeds the noise, one stream per image content.
            runtime: Where and how to run.

        Returns:
            The purified images.
        """
        start = time.perf_counter()
        net = denoiser_from(denoiser)
        ready = Denoising.of(
            net,
            channels=data.images.shape[1],
            steps=self.steps,
            runtime=runtime,
        )
        images = ready.redrawn(
            data.images, steps=self.steps, seed=seed, report=runtime.progress
        )
        return packed(
            data,
            images,
            method=self,
            seed=seed,
            seconds=time.perf_counter() - start,
            networks={"denoiser": net},
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
            name="pure-ddpm",
            summary=(
                f"{len(rows.ids):,} images were noised to level {self.steps} and "
                f"denoised; {change_in_words(rows.columns)}. This redraws fine detail, "
                "and faint patterns with it. It does not tell whether there was poison."
            ),
            class_names=class_names,
            seed=seed,
            seconds=seconds,
            forwards_per_image=float(self.steps),
        )
