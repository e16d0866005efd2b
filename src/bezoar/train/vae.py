"""Training of one disentangling autoencoder: one stage of D-VAE.

The loss is that of the authors' code. Their paper's equation 14 has the two terms of
reconstruction and the limit on the rate; the bound on the perturbation's energy, the
clip and the epochs without it stand in the code alone, and we follow the code. Their
loop also runs a classifier four times a step, to log: nothing of that is here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bezoar.data import ImageData
from bezoar.errors import DivergedError, InputError
from bezoar.models import fingerprint
from bezoar.models.vae import DecoderNorm, DVAENet, Embedding, PerturbationInput
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float
from bezoar.train.class_patterns import ClassPatterns, class_patterns
from bezoar.train.ranks import Ranks
from bezoar.train.vae_checkpoint import VAECheckpoint


@dataclass(frozen=True, kw_only=True)
class VAETraining:
    """How one autoencoder is trained.

    Attributes:
        nats: Limit on the rate, in nats for each place of the latent grid.
        kl_weight: Weight of the rate (lambda); 0 trains an autoencoder without noise.
        perturbation_mse: Energy of a perturbation that costs nothing; with "mean" the
            largest that a pattern may have.
        perturbation_weight: Weight of the energy beyond it.
        perturbation_start_rate: Share of the epochs before that weight counts.
        lr: Highest step size of Adam; a cosine brings it to 0.
        epochs: Passes over the images.
        batch_size: Images per step; the rest of an epoch is left out.
        grad_clip: Largest norm of a gradient.
        input_noise: Deviation of noise on the encoder's input.
        width: Channels of the first layer.
        latent_width: Channels of the latent grid.
        num_downsamples: Halvings of the grid.
        embedding: What a class adds: "spatial" or "vector".
        perturbation_input: What it is added to: "latent", "features" or "class"; or
            "mean", for what ``class_patterns`` finds, in place of a decoder.
        decoder_norm: What the decoders normalise over: "instance" or "batch".
    """

    nats: float = 1.0
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
    decoder_norm: DecoderNorm = "instance"

    def limits_energy(self, epoch: int) -> bool:
        """Return whether the perturbation's energy counts.

        Args:
            epoch: From 0 on.

        Returns:
            False for the first epochs: 11 of 60 in the published settings.
        """
        return epoch >= math.floor(self.perturbation_start_rate * self.epochs + 1e-9)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedVAE:
    """An autoencoder, and how its training went.

    Attributes:
        network: The network, in eval mode on the CPU.
        history: One row an epoch: "reconstruction" and "both" (mean squared errors of
            the image, and of image and perturbation together), "kl" (nats for a
            place), "energy" (of the perturbation) and "psnr" of the image in dB.
        too_strong: Classes whose pattern is above ``perturbation_mse``, so that none
            is kept; for "mean".
        too_few: Classes in which no pattern was looked for; for "mean".
    """

    network: DVAENet
    history: tuple[Mapping[str, float], ...]
    too_strong: tuple[int, ...] = ()
    too_few: tuple[int, ...] = ()


def kl_per_location(
    mean: Float[Tensor, "b z i j"], log_variance: Float[Tensor, "b z i j"]
) -> Float[Tensor, ""]:
    """Return the divergence from the standard normal distribution, place by place.

    Args:
        mean: Of the latent grid.
        log_variance: Of the latent grid.

    Returns:
        -1/2 sum over channels of (1 + log_variance - mean^2 - exp(log_variance)), in
        nats, in the mean over images and places.

    Example:
        >>> one, zero = torch.ones(1, 256, 2, 2), torch.zeros(1, 256, 2, 2)
        >>> kl_per_location(one, zero)
        tensor(128.)
    """
    terms = 1 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.mean((0, 2, 3)).sum()


def dvae_loss(
    image: Tensor,
    perturbation: Tensor,
    images: Tensor,
    kl: Tensor,
    *,
    settings: VAETraining,
    epoch: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, " 3"]]:
    """Return the loss of a batch; every error is a mean over all values.

    Args:
        image: The image drawn again, in [0, 1].
        perturbation: The perturbation, unbounded.
        images: The images given.
        kl: What ``kl_per_location`` returned.
        settings: Weights and limits.
        epoch: From 0 on.

    Returns:
        mse(image, images) + mse(clip(image + perturbation), images)
        + kl_weight max(kl, nats) + energy, and the two errors and the mean square of
        the perturbation by themselves. The maximum has no slope below the limit.
    """
    parts = torch.stack(
        [
            (image - images).square().mean(),
            ((image + perturbation).clamp(0, 1) - images).square().mean(),
            perturbation.square().mean(),
        ]
    )
    return _weighed(parts, kl, settings=settings, epoch=epoch), parts.detach()


def _weighed(parts: Tensor, kl: Tensor, *, settings: VAETraining, epoch: int) -> Tensor:
    alone, both, energy = parts
    loss: Tensor = alone + both
    if settings.kl_weight > 0:
        loss = loss + settings.kl_weight * kl.clamp(min=settings.nats)
    if settings.perturbation_weight > 0 and settings.limits_energy(epoch):
        bounded = energy.clamp(min=settings.perturbation_mse)
        loss = loss + settings.perturbation_weight * bounded
    return loss


def train_dvae(
    data: ImageData,
    *,
    settings: VAETraining = VAETraining(),
    start: DVAENet | None = None,
    stage: str = "train",
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> TrainedVAE:
    """Train one autoencoder.

    The result depends on the order of the images; it is repeatable on one machine.

    Args:
        data: Labelled images; without labels this is an ``InputError``.
        settings: The protocol.
        start: Weights to begin with; it stays as it is. None begins anew.
        stage: What the progress and the checkpoint are called.
        seed: Seeds the first weights, the order and the noise.
        runtime: Where and how to run; with ``work_dir`` a killed training goes on from
            its last epoch, and a finished one is not done again. With ``distributed``
            the first process keeps it.

    Returns:
        The network and the curves.

    Raises:
        DivergedError: If the loss is not finite.

    Example:
        >>> from bezoar.data import noise_images
        >>> small = VAETraining(width=4, latent_width=8, epochs=1, batch_size=4)
        >>> found = train_dvae(noise_images(8), settings=small)
        >>> sorted(found.history[0])
        ['both', 'energy', 'kl', 'psnr', 'reconstruction']
    """
    check_labelled(data)
    ranks = Ranks.of(runtime)
    network = _first(data, settings=settings, start=start, stage=stage, seed=seed)
    network = network.to(runtime.device).to(  # type: ignore[call-overload]
        memory_format=torch.channels_last
    )
    fused = runtime.device.type == "cuda"
    adam = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=fused)
    checkpoint = VAECheckpoint.at(
        runtime.work_dir,
        stage=stage,
        settings={**asdict(settings), "seed": seed, "start": _name(start)},
        data=data,
    )
    stored = data.images.to(runtime.device), data.labels.to(runtime.device)
    patterns = _fill(network, *stored, settings=settings)
    history = checkpoint.load(network, adam)
    size = min(settings.batch_size, len(data))
    ranks.check(checkpoint.key, batch_size=size, done=len(history))
    for epoch in range(len(history), settings.epochs):
        for group in adam.param_groups:
            group["lr"] = settings.lr * _cosine(epoch / settings.epochs)
        with ranks.synced(network):
            means = _epoch(
                network,
                adam,
                *stored,
                settings=settings,
                epoch=epoch,
                key=(seed, f"dvae.{stage}"),
                dtype=runtime.compute_dtype(),
                ranks=ranks,
            )
        if not math.isfinite(means["kl"] + means["both"]):
            raise DivergedError(
                f"expected a finite loss, got {means} in epoch {epoch + 1} of the "
                f"stage {stage!r}; lower lr ({settings.lr})"
            )
        history = (*history, means)
        if ranks.leads:
            checkpoint.save(network, adam, history=history)
        shown = {"kl": means["kl"], "psnr": means["psnr"]}
        runtime.progress(
            Progress(stage=stage, done=epoch + 1, total=settings.epochs, metrics=shown)
        )
    trained: DVAENet = network.eval().cpu().requires_grad_(False)
    if patterns is None:
        return TrainedVAE(network=trained, history=history)
    return TrainedVAE(
        network=trained,
        history=history,
        too_strong=patterns.too_strong,
        too_few=patterns.too_few,
    )


def check_labelled(data: ImageData) -> None:
    """Check that images have the labels that the perturbation is told apart by.

    Args:
        data: The images.

    Raises:
        InputError: If they have none.
    """
    if not data.is_labelled:
        raise InputError(
            f"expected labelled images for D-VAE, got {len(data)} without labels; sort "
            "them into one folder per class, name the --label-column, or take a method "
            "that needs none, such as shortcut-squeezing"
        )


def _first(
    data: ImageData,
    *,
    settings: VAETraining,
    start: DVAENet | None,
    stage: str,
    seed: int,
) -> DVAENet:
    if start is not None:
        return copy.deepcopy(start).requires_grad_(True)
    _, channels, height, width = data.images.shape
    # Another stage begins with other weights.
    drawn = generator(seed, f"dvae.{stage}.weights").initial_seed()
    return DVAENet(
        len(data.class_names),
        image_size=(height, width),
        in_channels=channels,
        width=settings.width,
        latent_width=settings.latent_width,
        num_downsamples=settings.num_downsamples,
        embedding=settings.embedding,
        perturbation_input=settings.perturbation_input,
        decoder_norm=settings.decoder_norm,
        seed=drawn,
    )


def _fill(
    network: DVAENet, images: Tensor, labels: Tensor, *, settings: VAETraining
) -> ClassPatterns | None:
    # A network without a decoder of perturbations gets those of the classes.
    if network.perturbation_input != "mean":
        return None
    means = network.get_buffer("means")
    limited = settings.perturbation_weight > 0
    found = class_patterns(
        images,
        labels,
        num_classes=len(means),
        max_energy=settings.perturbation_mse if limited else math.inf,
    )
    means.copy_(found.patterns)
    return found


def _name(start: DVAENet | None) -> str | None:
    return None if start is None else fingerprint(start)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _epoch(
    network: DVAENet,
    adam: torch.optim.Adam,
    images: Tensor,
    labels: Tensor,
    *,
    settings: VAETraining,
    epoch: int,
    key: tuple[int, str],
    dtype: torch.dtype,
    ranks: Ranks,
) -> dict[str, float]:
    network.train()
    seed, stream = key
    device = images.device
    order = torch.randperm(len(images), generator=generator(seed, stream, epoch))
    size = min(settings.batch_size, len(images))
    batches = order.to(device)[: len(images) // size * size].view(-1, size)
    drawn = torch.Generator(device)
    drawn.manual_seed(generator(seed, stream, epoch, "noise").initial_seed())
    sums = torch.zeros(4, device=device)
    for picked in batches:
        # Noise is drawn for the whole batch, whoever sees which part of it.
        noisy = _drawn((size, *images.shape[1:]), settings.input_noise, drawn)
        noise = _noise(network, size, drawn) if settings.kl_weight > 0 else None
        own = ranks.share(picked)
        shown = (images[own].float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outcome = network(
                shown if noisy is None else shown + ranks.share(noisy),
                labels[own],
                None if noise is None else ranks.share(noise),
            )
        loss, found = _loss(
            outcome, shown, size, settings=settings, epoch=epoch, ranks=ranks
        )
        adam.zero_grad()
        ranks.backward(loss, network, weight=1 / ranks.size)
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.grad_clip)
        adam.step()
        sums += found  # no synchronisation in the loop
    alone, both, energy, rate = (sums / len(batches)).tolist()
    return {
        "reconstruction": alone,
        "both": both,
        "energy": energy,
        "kl": rate,
        "psnr": -10 * math.log10(max(alone, 1e-12)) if alone == alone else math.nan,
    }


def _loss(
    outcome: tuple[Tensor, ...],
    shown: Tensor,
    size: int,
    *,
    settings: VAETraining,
    epoch: int,
    ranks: Ranks,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and its three errors and the rate."""
    image, perturbation, mean, log_variance = outcome
    if ranks.size == 1:
        kl = kl_per_location(mean, log_variance)
        loss, parts = dvae_loss(
            image, perturbation, shown, kl, settings=settings, epoch=epoch
        )
        return loss, torch.cat([parts, kl.detach()[None]])
    # The limits hold for the means over the batch, so all processes need them; images
    # are of one size, and the mean over a batch is that of the means over its images.
    terms = 1 + log_variance - mean.square() - log_variance.exp()
    each = [
        (image - shown).square().mean((1, 2, 3)),
        ((image + perturbation).clamp(0, 1) - shown).square().mean((1, 2, 3)),
        perturbation.square().mean((1, 2, 3)),
        -0.5 * terms.mean((2, 3)).sum(1),
    ]
    means = ranks.whole(torch.stack([row.float() for row in each], dim=1), size).mean(0)
    loss = _weighed(means[:3], means[3], settings=settings, epoch=epoch)
    return loss, means.detach()


def _drawn(
    shape: tuple[int, ...], deviation: float, drawn: torch.Generator
) -> Tensor | None:
    if deviation == 0:
        return None
    return deviation * torch.randn(shape, generator=drawn, device=drawn.device)


def _noise(network: DVAENet, size: int, drawn: torch.Generator) -> Tensor:
    shape = (size, *network.latent_shape)
    noise = torch.randn(shape, generator=drawn, device=drawn.device)
    return noise.contiguous(memory_format=torch.channels_last)
