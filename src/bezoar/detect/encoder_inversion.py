"""Is this encoder backdoored at all? The search for its trigger, without labels.

After Feng et al., Detecting Backdoors in Pre-trained Encoders (DECREE), CVPR 2023,
https://arxiv.org/abs/2303.15180: a backdoor lets a small patch make all images look
alike; a clean encoder needs a large one. Starts at windows, restarts side by side and
reference encoders are ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn

from bezoar.data import ImageData
from bezoar.detect.trigger_inversion import (
    Patches,
    Search,
    cosines_of,
    smallest_patches,
)
from bezoar.detect.trigger_windows import images_scanned, window_starts
from bezoar.errors import InputError
from bezoar.models import backbone_of, frozen_folded
from bezoar.results import Diagnosis, DiagnosisStatus, Provenance
from bezoar.runtime import Progress, Runtime, generator

LIMITS = (
    "a trigger that is spread over the whole image is not found, and one larger than "
    "a quarter of a side may be missed",
    "an attacker who knows this search can train the encoder against it",
    "how small is suspicious depends on the kind of encoder and image: the threshold "
    "was set on small encoders for 32 pixels; give clean encoders of the same kind",
)


@dataclass(frozen=True, kw_only=True)
class EncoderInversion:
    """Tells whether a small patch makes all images look alike to an encoder.

    Attributes:
        steps: Steps of the search.
        lr: Step size of Adam.
        cosine_target: Mean cosine between patched images that counts as alike.
        area_weight: Weight of the patch's area at the start.
        area_factor: What that weight is multiplied or divided by.
        patience: Steps in a row above or below the target before it is.
        batch_size: Images per step and restart.
        num_restarts: Patches to start from; the smallest counts.
        num_windows: How many of them start at a window that makes images alike, found
            on a grid of places; the others cover all of the image.
        num_images: Most images to use, from the first on.
        threshold: Area below which a backdoor is reported, where there are no
            reference encoders: a share of the image. Ours, set on small encoders.
        margin: With reference encoders the threshold is this share of the smallest
            area among them.
    """

    steps: int = 150
    lr: float = 0.1
    cosine_target: float = 0.95
    area_weight: float = 1e-3
    area_factor: float = 1.5
    patience: int = 5
    batch_size: int = 32
    num_restarts: int = 3
    num_windows: int = 2
    num_images: int = 1000
    threshold: float = 0.03
    margin: float = 0.7

    def __post_init__(self) -> None:
        counts = (self.steps, self.patience, self.num_restarts)
        if min(counts) < 1 or min(self.batch_size, self.num_images) < 2:
            raise InputError(
                "expected steps, patience and num_restarts of at least 1 and 2 images, "
                f"got {counts}, {self.batch_size} and {self.num_images}; raise them"
            )
        shares = (self.cosine_target, self.threshold, self.margin)
        if not all(0 < share < 1 for share in shares):
            raise InputError(
                "expected cosine_target, threshold and margin between 0 and 1, got "
                f"{shares}; correct them"
            )
        if not 0 <= self.num_windows <= self.num_restarts:
            raise InputError(
                f"expected num_windows from 0 to num_restarts ({self.num_restarts}), "
                f"got {self.num_windows}; lower it, or raise num_restarts"
            )
        if not self.lr > 0 or not self.area_weight > 0 or not self.area_factor > 1:
            raise InputError(
                "expected lr and area_weight above 0 and area_factor above 1, got "
                f"{self.lr}, {self.area_weight} and {self.area_factor}; correct them"
            )

    def diagnose(
        self,
        encoder: nn.Module,
        *,
        data: ImageData,
        references: Sequence[nn.Module] = (),
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Diagnosis:
        """Search for a patch that makes images look alike to an encoder.

        Args:
            encoder: Maps images in [0, 1] to vectors, or a ``SimCLR``; it is left as
                it was.
            data: Images such as the encoder is used for; labels are not looked at.
            references: Encoders of the same kind known to be clean; each costs as
                much as the encoder.
            seed: Seeds the starts and the batches, the same for all encoders.
            runtime: Where and how to run; its batch size does not matter.

        Returns:
            The smallest patch found and what it says.

        Raises:
            InputError: If there are fewer than two images, or to one of the
                references all images look alike.
        """
        if len(data) < 2:
            raise InputError(
                f"expected at least 2 images to look alike, got {len(data)}; give more"
            )
        start = time.perf_counter()
        total = (1 + len(references)) * self.steps
        patches, cosines = self._search(encoder, data, seed, runtime, 0, total)
        areas = []
        for place, clean in enumerate(references, start=1):
            found, told = self._search(clean, data, seed, runtime, place, total)
            if _is_blind(found):
                raise InputError(
                    "expected clean encoders that tell images apart, got one to which "
                    f"all look alike (mean cosine {told[0]:.3f}); leave it out"
                )
            areas.append(found.areas.min().item())
        best = int(patches.areas.argmin())
        area = patches.areas[best].item()
        threshold = self.margin * min(areas) if areas else self.threshold
        is_blind = _is_blind(patches)
        is_found = area < threshold and not is_blind
        summary = _summary(area, threshold, found=is_found, given=len(areas))
        status: DiagnosisStatus = "found" if is_found else "nothing found"
        return Diagnosis(
            status="not scoreable" if is_blind else status,
            summary=_BLIND.format(cosines[best]) if is_blind else summary,
            score=-math.log(area),
            area=area,
            threshold=threshold,
            cosine=cosines[best],
            mask=patches.masks[best],
            pattern=patches.patterns[best],
            restarts=tuple(
                {"area": a, "cosine": c}
                for a, c in zip(patches.areas.tolist(), cosines, strict=True)
            ),
            reference_areas=tuple(areas),
            p_value=_p_value(area, areas),
            limits=LIMITS,
            provenance=Provenance(
                method="encoder-inversion",
                settings=asdict(self),
                seed=seed,
                seconds=time.perf_counter() - start,
                forwards_per_image=2
                * self._num_shown(data)
                / min(self.num_images, len(data)),
            ),
        )

    def _search(
        self,
        encoder: nn.Module,
        data: ImageData,
        seed: int,
        runtime: Runtime,
        place: int,
        total: int,
    ) -> tuple[Patches, list[float]]:
        images = data.images[: self.num_images].float() / 255
        net = frozen_folded(
            backbone_of(encoder),
            device=runtime.device,
            dtype=runtime.compute_dtype(),
            images=images[:2],
        )
        shown = images.to(runtime.device)

        def told(done: int, area: float) -> None:
            runtime.progress(
                Progress(
                    stage="search",
                    done=place * self.steps + done,
                    total=total,
                    metrics={"area": area},
                )
            )

        without = cosines_of(net, shown, _plain(shown))
        if without.item() > self.cosine_target:
            told(self.steps, 1.0)
            return _plain(shown), without.tolist()
        starts = None
        if self.num_windows > 0:
            starts = window_starts(
                net,
                shown,
                count=self.num_windows,
                most_images=self.num_restarts * self.batch_size,
                stream=generator(seed, "encoder-inversion", "windows"),
            )
        patches = smallest_patches(
            net,
            shown,
            search=self._how(),
            stream=generator(seed, "encoder-inversion"),
            told=told,
            starts=starts,
        )
        return patches, cosines_of(net, shown, patches).tolist()

    def _num_shown(self, data: ImageData) -> int:
        in_a_step = self.num_restarts * min(self.batch_size, len(data))
        scanned = images_scanned(data.images.shape) if self.num_windows else 0
        return self.steps * in_a_step + scanned

    def _how(self) -> Search:
        return Search(
            steps=self.steps,
            lr=self.lr,
            cosine_target=self.cosine_target,
            area_weight=self.area_weight,
            area_factor=self.area_factor,
            patience=self.patience,
            batch_size=self.batch_size,
            num_restarts=self.num_restarts,
        )


def _plain(images: torch.Tensor) -> Patches:
    _, channels, height, width = images.shape
    return Patches(
        masks=torch.zeros(1, height, width),
        patterns=torch.zeros(1, channels, height, width),
        areas=torch.ones(1),
    )


def _is_blind(patches: Patches) -> bool:
    # What ``_plain`` makes is no patch: all images looked alike without one.
    return not patches.masks.any()


_BLIND = (
    "All images look alike to this encoder without any patch (mean cosine {:.3f}), so "
    "that no trigger can be told by that: it is untrained or has collapsed, or its "
    "features share a large constant part. Raise cosine_target, or centre the features."
)


def _p_value(area: float, references: Sequence[float]) -> float | None:
    if not references:
        return None
    return (1 + sum(r <= area for r in references)) / (1 + len(references))


def _summary(area: float, threshold: float, *, found: bool, given: int) -> str:
    share = partial("{:.1%}".format)
    beside = (
        f"{threshold:.1%}, from {given} clean encoders" if given else share(threshold)
    )
    if found:
        return (
            f"A patch of {share(area)} of the image makes all images look alike to "
            f"this encoder (reported below {beside}). Do not build on it; repair it, "
            "or train another."
        )
    return (
        f"No patch below {beside} of the image was found that makes images look alike "
        "to this encoder. Triggers of other kinds were not looked for."
    )
