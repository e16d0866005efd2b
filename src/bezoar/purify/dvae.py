"""D-VAE (Yu et al., ICML 2024, https://arxiv.org/abs/2405.01460).

Makes unlearnable images learnable again, with nothing but the images and their labels.
An autoencoder whose rate is limited keeps what lowers the error most, and that is the
image; what is faint and goes with the class fits a decoder of its own, which is told
the class, and is taken away. Twice: roughly, then at a higher rate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import InputError
from bezoar.metrics import psnr
from bezoar.models.vae import DecoderNorm, DVAENet, Embedding, PerturbationInput
from bezoar.models.vae_files import save_dvae
from bezoar.purify.dvae_passes import perturbation_columns, run_pass
from bezoar.purify.dvae_report import concluded
from bezoar.purify.packing import packed
from bezoar.purify.screening import check_alarm, compared, sample_rows
from bezoar.results import Purification, Screening
from bezoar.runtime import Runtime
from bezoar.train.vae import TrainedVAE, VAETraining, check_labelled, train_dvae

_KEPT = 50_000 * 3072  # values of a perturbation that are kept for a report
_SEEDS = 3  # of the probes that look for a null result


@dataclass(frozen=True, kw_only=True)
class DVAE:
    """Takes noise that makes images unlearnable out, with two limited autoencoders.

    Needs labels, and some thousand images. Trains on the whole set, so that the result
    for an image depends on the others; with ``networks`` given it does not.

    Attributes:
        rough_nats: Limit on the rate of the first stage, nats for each place of the
            latent grid.
        fine_nats: Limit of the second stage; 4.5 is reported for 100 classes.
        kl_weight: Weight of the rate (lambda); 0 trains plain autoencoders.
        perturbation_mse: Energy of a perturbation that costs nothing; for "mean" the
            largest of a pattern, beyond which the class keeps it.
        perturbation_weight: Weight of the energy beyond it; 0 sets no limit.
        perturbation_start_rate: Share of the epochs before that weight counts.
        lr: Highest step size of Adam; a cosine brings it to 0.
        epochs: Passes over the images, for each stage.
        batch_size: Images per step.
        grad_clip: Largest norm of a gradient.
        input_noise: Deviation of noise on the encoder's input in training.
        width: Channels of the first layer; 64 in the paper.
        latent_width: Channels of the latent grid; 256 in the paper.
        num_downsamples: Halvings of the latent grid: 1 up to 64 pixels, 3 above.
        embedding: What a class adds: "spatial", or "vector" for larger images.
        perturbation_input: What the class is added to: "latent" (as published),
            "features", or "class" (to nothing); or "mean", which takes in place of a
            decoder what ``class_patterns`` finds in the images of a class. For noise
            that is the same in all images of a class, or nearly so; the rough stage
            then trains nothing.
        smooth_noise: Height of a smooth random colour that is added to each image, in
            place of what its class's pattern may hold of a smooth one, which cannot be
            told from what the class looks like; in multiples of that pattern's root
            mean square in each channel, so that it is 0 where none is found. For
            "mean" alone.
        decoder_norm: What the decoders normalise over: "instance", each image by
            itself (as published), or "batch", which keeps how bright an image is and
            needs far fewer steps for that.
        sample_latent: Draw the latent grid when purifying, as published; else its
            mean is taken.
        stages: "both", "rough" (the first alone, which subtracts), or "fine" (the
            second alone, on the images given).
        output: "reconstruction" (as published), or "subtracted", sharper, with what
            the perturbation missed.
        rounding: Of grey levels: "nearest", or "floor" as in the authors' code.
        warm_start: Begin the second stage with the weights of the first.
        alarm_gap: What a small network has to lose on held-out images by the
            purification, as an accuracy, for the set to count as poisoned (a linear
            rule twice as much); below it the images come back as they were given.
            None purifies in any case, and looks at nothing.

    Example:
        >>> from bezoar.data import noise_images
        >>> tiny = DVAE(width=4, latent_width=8, epochs=1, batch_size=4)
        >>> done = tiny.purify(noise_images(8))
        >>> done.data.images.shape, sorted(done.extras)
        (torch.Size([8, 3, 8, 8]), ['fine_perturbation', 'rough_perturbation'])
    """

    rough_nats: float = 1.0
    fine_nats: float = 3.0
    kl_weight: float = 0.01
    perturbation_mse: float = 0.002
    perturbation_weight: float = 1.0
    perturbation_start_rate: float = 11 / 60
    lr: float = 5e-3
    epochs: int = 60
    batch_size: int = 128
    grad_clip: float = 5.0
    input_noise: float = 0.0
    width: int = 64
    latent_width: int = 256
    num_downsamples: int = 1
    embedding: Embedding = "spatial"
    perturbation_input: PerturbationInput = "latent"
    smooth_noise: float = 0.0
    decoder_norm: DecoderNorm = "instance"
    sample_latent: bool = True
    stages: Literal["both", "rough", "fine"] = "both"
    output: Literal["reconstruction", "subtracted"] = "reconstruction"
    rounding: Literal["nearest", "floor"] = "nearest"
    warm_start: bool = False
    alarm_gap: float | None = None

    uses_engine: ClassVar[bool] = True
    """Its passes over the images do; the training stays in this process."""

    def __post_init__(self) -> None:
        wholes = self.epochs, self.batch_size, self.width, self.latent_width
        if min(wholes) < 1:
            raise InputError(
                "expected epochs, batch_size, width and latent_width of at least 1, "
                f"got {', '.join(map(str, wholes))}; raise them"
            )
        noises = self.input_noise, self.smooth_noise
        rates = self.rough_nats, self.fine_nats, self.kl_weight, *noises
        if not (self.lr > 0 and self.grad_clip > 0 and min(rates) >= 0):
            raise InputError(
                "expected lr and grad_clip above 0, and nats, kl_weight, input_noise "
                f"and smooth_noise of at least 0, got {self.lr}, {self.grad_clip} and "
                f"{', '.join(map(str, rates))}; correct them"
            )
        if not 0 <= self.perturbation_start_rate <= 1:
            raise InputError(
                "expected perturbation_start_rate from 0 to 1, got "
                f"{self.perturbation_start_rate}; it is a share of the epochs"
            )
        check_alarm(self.alarm_gap)
        if self.stages != "both" and self.warm_start:
            raise InputError(
                f"expected no warm_start for the stages {self.stages!r}, got one; "
                "leave it out, or take both stages"
            )
        if self.perturbation_input == "mean" and self.warm_start:
            raise InputError(
                "expected no warm_start with the perturbation_input 'mean', whose "
                "rough stage trains no network, got one; leave it out"
            )
        if self.perturbation_input != "mean" and self.smooth_noise > 0:
            raise InputError(
                "expected smooth_noise of 0 but for the perturbation_input 'mean', got "
                f"{self.smooth_noise:g} for {self.perturbation_input!r}; set it to 0"
            )
        if self._only_patterns and self.alarm_gap is not None:
            raise InputError(
                "expected no alarm_gap where only patterns are subtracted, which the "
                "probes would miss in the same way, got one; leave it out: without a "
                "pattern the images come back as they are"
            )
        if self.stages == "rough" and self.output != "reconstruction":
            raise InputError(
                "expected no output for the rough stage alone, which always subtracts, "
                f"got {self.output!r}; leave it out, or take both stages"
            )

    @classmethod
    def cifar100(cls) -> DVAE:
        """Return what is reported for 100 classes of 500 images.

        Returns:
            A higher rate in the second stage, and 100 epochs.
        """
        return cls(fine_nats=4.5, epochs=100)

    @classmethod
    def mini(cls) -> DVAE:
        """Return settings for a few thousand images and two cores.

        In so few steps the decoders as published do not learn how bright an image is,
        which their normalisation takes away; here they keep it. Nor is a decoder of
        perturbations learnt: an estimate from the mean over a class stands for it.

        Returns:
            A width of 8, 24 epochs in small batches, and 4 nats in the second stage.
        """
        return cls(
            fine_nats=4.0,
            width=8,
            latent_width=32,
            epochs=24,
            batch_size=32,
            perturbation_input="mean",
            smooth_noise=1.0,
            decoder_norm="batch",
        )

    @classmethod
    def quick(cls) -> DVAE:
        """Return the first stage alone, without any training: seconds, and no blur.

        It takes out what is the same in all images of a class, or nearly: patches
        (LSP), single pixels (OPS), class-wise noise. What is new in each image (AR),
        or a filter, it leaves.

        Returns:
            Patterns of the classes, with smooth noise, and the rough stage alone.
        """
        return cls(perturbation_input="mean", smooth_noise=1.0, stages="rough")

    @classmethod
    def large_images(cls) -> DVAE:
        """Return settings for 64 to 224 pixels; not tried at full size.

        Returns:
            Three halvings, one vector for each class, 20 epochs.
        """
        return cls(rough_nats=1.5, num_downsamples=3, embedding="vector", epochs=20)

    def purify(
        self,
        data: ImageData,
        *,
        networks: tuple[DVAENet, DVAENet] | None = None,
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Purification:
        """Purify images.

        With ``runtime.work_dir`` a killed run goes on from its last epoch, and the
        networks are left there, for ``load_dvae``.

        Args:
            data: Labelled images; their labels are taken for true.
            networks: Those of an earlier run on images like these, rough and fine, in
                place of training; an ``InputError`` follows if they do not fit.
            seed: Seeds weights, order and noise.
            runtime: Where and how to run.

        Returns:
            The purified images, or with ``alarm_gap`` those given where nothing was
            found (the summary has the verdict, the figures what each probe tells, and
            for "mean" the number of "classes_with_pattern"); as
            extras what was subtracted, and with the columns of every purifier
            "perturbation_l2", "perturbation_cosine" (to the mean over its class) and
            "reconstruction_mse".
        """
        start = time.perf_counter()
        check_labelled(data)
        given = (
            {}
            if networks is None
            else dict(zip(("rough", "fine"), networks, strict=True))
        )
        made: dict[str, TrainedVAE] = {}
        extras: dict[str, Tensor] = {}
        left = data
        for stage, nats in self._stages():
            start_with = made["rough"].network if self.warm_start and made else None
            made[stage] = trained = (
                TrainedVAE(network=given[stage], history=())
                if stage in given
                else train_dvae(
                    left,
                    settings=self._training(stage, nats),
                    start=start_with,
                    stage=stage,
                    seed=seed,
                    runtime=runtime,
                )
            )
            images, extras[f"{stage}_perturbation"] = run_pass(
                trained.network,
                left,
                reconstruct=self._draws(stage),
                sample=self.sample_latent,
                rounding=self.rounding,
                stage=stage,
                seed=seed,
                runtime=runtime,
                smooth_noise=self.smooth_noise,
            )
            left = replace(left, images=images)
            if runtime.work_dir is not None:
                path = runtime.work_dir / f"{stage}.safetensors"
                save_dvae(trained.network, path)
        told = self._looked_at(data, left, seed=seed, runtime=runtime)
        if told is not None and told.status == "nothing found":
            left = data
        return packed(
            data,
            left.images,
            method=self,
            seed=seed,
            seconds=time.perf_counter() - start,
            columns={
                **perturbation_columns(extras, data),
                "reconstruction_mse": 10 ** (-psnr(data.images, left.images) / 10),
            },
            extras=extras if data.images.numel() <= _KEPT else {},
            conclude=lambda rows: concluded(
                rows,
                data,
                made,
                told,
                method=self,
                limits=dict(self._stages()),
                seed=seed,
                seconds=time.perf_counter() - start,
            ),
        )

    def _looked_at(
        self, data: ImageData, left: ImageData, *, seed: int, runtime: Runtime
    ) -> Screening | None:
        if self.alarm_gap is None:
            return None
        rows = sample_rows(len(data), seed=seed)
        return compared(
            data.take(rows),
            left.take(rows),
            alarm_gap=self.alarm_gap,
            seeds=tuple(seed + i for i in range(_SEEDS)),
            settings={"treatment": "dvae"},
            runtime=runtime,
        )

    def _stages(self) -> list[tuple[str, float]]:
        every = [("rough", self.rough_nats), ("fine", self.fine_nats)]
        return [(s, nats) for s, nats in every if self.stages in ("both", s)]

    def _draws(self, stage: str) -> bool:
        return stage == "fine" and self.output == "reconstruction"

    @property
    def _only_patterns(self) -> bool:
        drawn = any(self._draws(stage) for stage, _ in self._stages())
        return self.perturbation_input == "mean" and not drawn

    def _training(self, stage: str, nats: float) -> VAETraining:
        shared = {f.name for f in fields(VAETraining)} - {"nats"}
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared}
        if self.perturbation_input == "mean" and not self._draws(stage):
            # It subtracts the patterns and draws nothing: the network only holds them.
            settings |= {"epochs": 0, "width": 1, "latent_width": 1}
        return VAETraining(nats=nats, **settings)
