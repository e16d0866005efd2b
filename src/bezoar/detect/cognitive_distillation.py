"""Cognitive Distillation (Huang et al., ICLR 2023, https://arxiv.org/abs/2301.10908).

A learned mask keeps the least of an image that still gives the same model output. A
backdoored image needs little more than its trigger: small masks are suspicious.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bezoar.data import ImageData, to_uint8
from bezoar.data.sampling import sample_images
from bezoar.detect.mask_distillation import MaskSettings
from bezoar.detect.mask_scoring import (
    LAST_MAP,
    calibrate_l1_weight,
    distilled,
    target_share,
)
from bezoar.detect.mask_transplant import (
    accused_classes,
    acquitted_classes,
    strongest_pixels,
    transplant_rate,
    with_rates,
)
from bezoar.detect.mask_verdict import Threshold, check_reference, health_of, judge
from bezoar.errors import InputError
from bezoar.results import Detection, Provenance, Scores
from bezoar.runtime import Runtime
from bezoar.shapes import UInt8

_SAMPLE = 128  # images that a weight is calibrated on


@dataclass(frozen=True, kw_only=True)
class CognitiveDistillation:
    """Scores images by the size of the mask that keeps the model's output.

    The model has to be trained on the images, or on images poisoned the same way.

    The paper keeps the logits. By default this keeps the class probabilities: where a
    trigger has decided, the other logits still follow the rest of the image, and a
    mask that has to keep them all grows although the decision needs little. And other
    images stand behind the mask where the paper has flat colours: a class that the
    model gives to an empty image needs no mask before a flat colour. What both gain
    is measured on the docs page; ``paper`` gives the published method.

    Attributes:
        steps: Optimiser steps per image; each is one forward and backward pass.
        lr: Step size of Adam on the mask.
        l1_weight: Weight of the mask's L1 norm (alpha in the paper); "auto" looks for
            the weight that leaves the median mask ``target_share`` of the image.
        target_share: Share of the image that the weight "auto" leaves to the median
            mask; "auto" is 0.6 of the pixels in which images of the set differ
            visibly: half of a photograph, a third of a digit on black.
        tv_weight: Weight of the mask's total variation (beta in the paper).
        betas: Decay of Adam's two moments.
        fill: What stands in for masked pixels: "images" (others of the set, anew at
            every step) or "colours" (flat random ones, as in the paper).
        match: What the mask has to keep: "probabilities", "logits" (CD-L in the
            paper) or "features" (CD-F).
        layer: Name of the module whose output CD-F matches; None takes the last
            feature map before pooling.
        mask_scale: Side of a mask's cell in pixels.
        threshold: Rule that turns scores into a verdict: "auto", "reference",
            "class_scan", "sigmas", "review" or "none".
        sigmas: Deviations below the mean for "sigmas" (gamma in the paper).
        false_discovery_rate: Share of innocents aimed at among the flagged.
        min_transplant_excess: A class that "class_scan" finds is accused only if what
            the model needs of its suspicious images, pasted on others, turns half of
            them into the class, or this share more than what it needs of the least
            suspicious ones; 0 leaves the test out.
        review_rate: Share of the images that "review" lists.
        num_masks: Masks to keep, of the most suspicious images.

    Example:
        >>> from bezoar.data import noise_images
        >>> method = CognitiveDistillation(steps=2, l1_weight=0.01)
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> found = method.detect(noise_images(3), model=net)
        >>> found.scores.shape, found.verdict.status
        (torch.Size([3]), 'ranking')
    """

    steps: int = 40
    lr: float = 0.1
    l1_weight: float | Literal["auto"] = "auto"
    target_share: float | Literal["auto"] = "auto"
    tv_weight: float = 10.0
    betas: tuple[float, float] = (0.1, 0.1)
    fill: Literal["images", "colours"] = "images"
    match: Literal["probabilities", "logits", "features"] = "probabilities"
    layer: str | None = None
    mask_scale: int = 1
    threshold: Threshold = "auto"
    sigmas: float = 1.0
    false_discovery_rate: float = 0.10
    min_transplant_excess: float = 0.2
    review_rate: float = 0.05
    num_masks: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.mask_scale < 1:
            raise InputError(
                f"expected steps and mask_scale of at least 1 and lr above 0, got "
                f"{self.steps}, {self.mask_scale} and {self.lr}; raise them"
            )
        if self.l1_weight != "auto" and self.l1_weight < 0:
            raise InputError(
                f"expected l1_weight of at least 0, got {self.l1_weight}; give a "
                'weight such as 0.01, or "auto"'
            )
        if self.target_share != "auto" and not 0 < self.target_share < 1:
            raise InputError(
                f"expected target_share above 0 and below 1, got {self.target_share}; "
                'give a share of the image such as 0.4, or "auto"'
            )
        if not 0 <= self.min_transplant_excess <= 1:
            raise InputError(
                "expected min_transplant_excess from 0 to 1, got "
                f"{self.min_transplant_excess}; it is a share of images"
            )
        if self.layer is not None and self.match != "features":
            raise InputError(
                f"expected no layer when {self.match} are matched, got "
                f'{self.layer!r}; set match="features" or leave it out'
            )

    @classmethod
    def quick(cls) -> CognitiveDistillation:
        """Return the defaults with fewer steps, for a first look.

        Returns:
            24 steps instead of 40; patches are found as well, faint patterns less.
        """
        return cls(steps=24)

    @classmethod
    def paper(cls) -> CognitiveDistillation:
        """Return the published method: CD-L with the settings of its experiments.

        Returns:
            100 steps that keep the logits, and the paper's threshold.
        """
        return cls(
            steps=100,
            l1_weight=0.01,
            fill="colours",
            match="logits",
            threshold="sigmas",
        )

    @classmethod
    def features(cls) -> CognitiveDistillation:
        """Return the settings of CD-F: match the last feature map.

        Returns:
            The paper's weights, with the official code's step size.
        """
        return replace(cls.paper(), match="features", l1_weight=0.001, lr=0.05)

    @classmethod
    def official_code(cls) -> CognitiveDistillation:
        """Return the settings that the official scripts run with.

        Returns:
            Those of the paper with less total variation and the threshold of half a
            deviation.
        """
        return replace(cls.paper(), tv_weight=1.0, sigmas=0.5)

    def detect(
        self,
        data: ImageData,
        *,
        model: nn.Module,
        reference: Detection | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Detection:
        """Score every image by how little of it ``model`` needs, and judge the set.

        Args:
            data: Images, with labels if there are any; without, the verdict takes the
                model's own predictions for labels.
            model: Maps images in [0, 1] to logits ``(n, k)``; it is left as it was.
            reference: Scores of clean images under the same settings, for the
                threshold "reference".
            seed: Seeds the colours behind the masks, one stream per image content.
            runtime: Where and how to run.

        Returns:
            Scores from 0 to 1, one less the mask's share of the image, and a verdict.
        """
        start = time.perf_counter()
        sample = None
        if self.calibration_images:
            sample = sample_images(data, self.calibration_images, seed=seed)
        ready = self.prepare(sample, model=model, seed=seed, runtime=runtime)
        scores = ready.score(
            data, model=model, sample=sample, seed=seed, runtime=runtime
        )
        found = ready.conclude(
            scores,
            class_names=data.class_names,
            reference=reference,
            seed=seed,
            seconds=time.perf_counter() - start,
        )
        if again := ready.witnesses(found):
            rows = {name: row for row, name in enumerate(data.ids)}
            looked_at = data.take(torch.tensor([rows[name] for name in again]))
            found = ready.confirm(
                found, looked_at, model=model, sample=sample, seed=seed, runtime=runtime
            )
        if self.num_masks == 0:
            return found
        top = found.scores.argsort(descending=True, stable=True)[: self.num_masks]
        shown = data.take(top)
        masks = ready.masks(
            shown, model=model, sample=sample, seed=seed, runtime=runtime
        )
        return found.with_masks(masks, shown.ids)

    @property
    def calibration_images(self) -> int:
        """How many images of the set the other stages want; 0 for none."""
        confirms = (
            self.threshold in ("auto", "class_scan") and self.min_transplant_excess
        )
        needed = confirms or self.l1_weight == "auto" or self.fill == "images"
        return _SAMPLE if needed else 0

    def prepare(
        self,
        sample: ImageData | None,
        *,
        model: nn.Module,
        seed: int,
        runtime: Runtime,
    ) -> CognitiveDistillation:
        """Return the method with "auto" replaced by the weight that fits the model.

        Args:
            sample: Images to try weights on.
            model: As for ``detect``.
            seed: As for ``detect``.
            runtime: As for ``detect``.

        Returns:
            The settings to score with.
            An ``UnscoreableError`` follows when no weight leaves healthy masks.
        """
        if self.l1_weight != "auto":
            return self
        assert sample is not None
        quiet = replace(runtime, progress=Runtime().progress)

        def median_share(weight: float) -> float:
            tried = replace(self, l1_weight=weight)
            scores = tried.score(
                sample, model=model, sample=sample, seed=seed, runtime=quiet
            )
            return scores.columns["mask_share"].median().item()

        small = sample.images[0, 0].numel() <= 64 * 64
        wanted = self.target_share
        weight = calibrate_l1_weight(
            median_share,
            target=target_share(sample.images) if wanted == "auto" else wanted,
            start=0.003 if small else 0.0003,
            report=runtime.progress,
        )
        return replace(self, l1_weight=weight)

    def score(
        self,
        data: ImageData,
        *,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> Scores:
        """Return the raw columns of some images.

        Args:
            data: The images.
            model: As for ``detect``.
            sample: The images that ``prepare`` saw; some stand behind the masks.
            seed: As for ``detect``.
            runtime: As for ``detect``.

        Returns:
            ``mask_norm`` (L1 norm), ``mask_share`` (of the image's area) and
            ``predicted`` (the model's class).
        """
        norms, predicted = [], []
        for masks, classes in self._distilled(data, model, sample, seed, runtime):
            norms.append(masks.flatten(1).sum(1))
            predicted.append(classes)
        norm = torch.cat(norms)
        return Scores(
            ids=data.ids,
            labels=data.labels,
            columns={
                "mask_norm": norm,
                "mask_share": norm / data.images[0, 0].numel(),
                "predicted": torch.cat(predicted).float(),
            },
        )

    def masks(
        self,
        data: ImageData,
        *,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> UInt8[Tensor, "n h w"]:
        """Return the masks of some images.

        Args:
            data: The images.
            model: As for ``detect``.
            sample: The images that ``prepare`` saw; some stand behind the masks.
            seed: As for ``detect``.
            runtime: As for ``detect``.

        Returns:
            One mask per image; 255 keeps the pixel.
        """
        quiet = replace(runtime, progress=Runtime().progress)
        parts = self._distilled(data, model, sample, seed, quiet)
        return to_uint8(torch.cat([masks for masks, _ in parts]))

    def conclude(
        self,
        scores: Scores,
        *,
        class_names: tuple[str, ...],
        reference: Detection | None,
        seed: int,
        seconds: float,
    ) -> Detection:
        """Return the verdict on all images.

        Args:
            scores: The raw columns of all images.
            class_names: Names by class index; empty without labels.
            reference: As for ``detect``.
            seed: As for ``detect``.
            seconds: Wall-clock time of the work.

        Returns:
            The detection; the scores of a set are judged once, on the whole table.
        """
        share = scores.columns["mask_share"]
        if reference is not None:
            area = (scores.columns["mask_norm"].sum() / share.sum()).item()
            check_reference(reference, settings=asdict(self), image_area=area)
        verdict, decision, reasons = judge(
            scores, class_names=class_names, reference=reference, method=self
        )
        return Detection(
            ids=scores.ids,
            labels=scores.labels,
            class_names=class_names,
            scores=1 - share,
            p_values=decision.p_values,
            flagged=decision.flagged,
            reasons=reasons,
            columns=scores.columns,
            verdict=replace(verdict, health=health_of(share, self)),
            provenance=Provenance(
                method="cognitive-distillation",
                settings=asdict(self),
                seed=seed,
                seconds=seconds,
                forwards_per_image=1 + 2 * self.steps,
            ),
        )

    def witnesses(self, detection: Detection) -> tuple[str, ...]:
        """Return the images that have to be seen again before anything is accused.

        Args:
            detection: What ``conclude`` came to.

        Returns:
            Ids of the most and of the least suspicious images of each found class;
            none when nothing was found.
        """
        if self.min_transplant_excess == 0:
            return ()
        accused = accused_classes(detection).values()
        rows = [row for part in accused for row in (*part.suspects, *part.controls)]
        return tuple(detection.ids[row] for row in rows)

    def confirm(
        self,
        detection: Detection,
        witnesses: ImageData,
        *,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> Detection:
        """Return the verdict after a second look at the images accused.

        Args:
            detection: What ``conclude`` came to.
            witnesses: The images that ``witnesses`` asked for, in that order.
            model: As for ``detect``.
            sample: The images that ``prepare`` saw; some are pasted on.
            seed: As for ``detect``.
            runtime: As for ``detect``.

        Returns:
            The detection with the evidence added. A class whose images do not turn
            others is no longer accused.
        """
        assert sample is not None
        quiet = replace(runtime, progress=Runtime().progress)
        parts = self._distilled(witnesses, model, sample, seed, quiet)
        kept = strongest_pixels(torch.cat([masks for masks, _ in parts]))
        rates: dict[int, tuple[float, float]] = {}
        start = 0
        for label, accused in accused_classes(detection).items():
            others = sample.images[sample.labels != label]
            pair = []
            for rows in (accused.suspects, accused.controls):
                own = slice(start, start := start + len(rows))
                pair.append(
                    transplant_rate(
                        witnesses.images[own],
                        kept[own],
                        others,
                        label=label,
                        model=model,
                        runtime=runtime,
                    )
                )
            if pair[0] is not None and pair[1] is not None:
                rates[label] = (pair[0], pair[1])
        weak = acquitted_classes(rates, min_excess=self.min_transplant_excess)
        if weak:
            detection = self._judged(detection, acquitted=weak)
        return with_rates(detection, rates)

    def _judged(self, detection: Detection, *, acquitted: Sequence[int]) -> Detection:
        scores = Scores(
            ids=detection.ids, labels=detection.labels, columns=detection.columns
        )
        verdict, decision, reasons = judge(
            scores,
            class_names=detection.class_names,
            reference=None,
            method=self,
            acquitted=acquitted,
        )
        return replace(
            detection,
            p_values=decision.p_values,
            flagged=decision.flagged,
            reasons=reasons,
            verdict=replace(verdict, health=detection.verdict.health),
        )

    def _distilled(
        self,
        data: ImageData,
        model: nn.Module,
        sample: ImageData | None,
        seed: int,
        runtime: Runtime,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.l1_weight != "auto"  # prepare() has replaced it
        settings = MaskSettings(
            match=self.match,
            steps=self.steps,
            lr=self.lr,
            betas=self.betas,
            l1_weight=self.l1_weight,
            tv_weight=self.tv_weight,
            mask_scale=self.mask_scale,
        )
        return distilled(
            data,
            model,
            settings=settings,
            pool=sample if self.fill == "images" else None,
            layer=(self.layer or LAST_MAP) if self.match == "features" else None,
            seed=seed,
            runtime=runtime,
        )
