"""Training of energy networks by maximum likelihood, with chains that persist.

PureEBM (Bhat et al., 2024, https://arxiv.org/abs/2405.19376); the updates are those of
PureGen's code. Each pulls the energy of real images down and that of the chains'
images up, until the chains, which walk down the energy, look like real images.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict

import torch
from torch import Tensor

from bezoar.checks import check_images
from bezoar.errors import InputError
from bezoar.models.energy import EnergyNet
from bezoar.models.langevin import langevin, shared_noise
from bezoar.models.weights import fingerprint
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, Int64, UInt8
from bezoar.train.augment import crop_and_flip
from bezoar.train.energy_health import WINDOW, Health
from bezoar.train.energy_settings import EnergyTraining
from bezoar.train.energy_state import EnergyState, key_of
from bezoar.train.ranks import ALONE, Ranks

_DEFAULT = EnergyTraining()
_SHIFT = 4  # pixels either way: every place on a grid of 8x8 blocks
_KEPT = 10  # windows between two checkpoints
_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def train_energy(
    images: UInt8[Tensor, "n c h w"],
    *,
    settings: EnergyTraining = _DEFAULT,
    start: EnergyNet | None = None,
    minutes: float | None = None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> EnergyNet:
    """Train an energy network on images that need no labels.

    Images that nobody vouches for are better than none: the paper trains on images
    that are all poisoned by up to 8/255 and purifies as well; at 16/255 no longer.
    Repeatable from its seed on one machine. A training that goes astray stops with a
    ``DivergedError`` that says what to change.

    Args:
        images: At least one batch of images.
        settings: How to train; ``EnergyTraining.quick()`` for a CPU.
        start: A network of the same sizes to go on from, such as one that ships; it is
            left as it was. Chains and optimiser begin anew; the card tells of it.
        minutes: Stop after this long; None goes on to the end. With ``work_dir`` the
            next call takes it up from there; 0 returns what the checkpoint holds.
        seed: Seeds weights, batches and chains.
        runtime: Where and how to run; with ``work_dir`` a checkpoint is kept there,
            and a killed training goes on from it to the same weights; one that is over
            is read from it (``forget_training`` removes it). With ``distributed`` each
            process walks its share of the chains.

    Returns:
        The network in eval mode on the CPU; its card holds settings, curves and the
        quantiles of the energies of ``images``.

    Raises:
        InputError: If there are too few images, or ``start`` has other sizes.

    Example:
        >>> from bezoar.data import noise_images
        >>> small = EnergyTraining(
        ...     num_filters=4, num_updates=2, batch_size=4, chain_steps=2, bank_size=8
        ... )
        >>> images = noise_images(8).images
        >>> net = train_energy(images, settings=small)
        >>> net.card["updates"]
        2
    """
    check_images(images)
    if len(images) < settings.batch_size:
        raise InputError(
            f"expected at least {settings.batch_size} images to train on, got "
            f"{len(images)}; give more or lower batch_size"
        )
    stored = images.to(runtime.device)
    ranks = Ranks.of(runtime)
    state = _begin(stored, settings=settings, start=start, seed=seed)
    begun = {} if start is None else {"start": fingerprint(start)}
    key = key_of({**asdict(settings), "seed": seed, **begun}, images)
    if runtime.work_dir is not None:
        state.load(runtime.work_dir, key=key)
    ranks.check(key, batch_size=settings.batch_size, done=state.update)
    health = _health(stored, curves=state.curves)
    until = math.inf if minutes is None else time.perf_counter() + 60 * minutes
    while state.update < settings.num_updates and _is_before(until, ranks):
        last = min(state.update + WINDOW, settings.num_updates)
        began = time.perf_counter()
        gaps, drift = _window(
            state,
            stored,
            last,
            settings=settings,
            seed=seed,
            runtime=runtime,
            ranks=ranks,
        )
        state.seconds += time.perf_counter() - began
        mean, std = state.bank.mean().item(), state.bank.std().item()
        metrics = health.check(
            last, gaps=gaps, drift=drift, bank_mean=mean, bank_std=std
        )
        is_end = time.perf_counter() >= until or last == settings.num_updates
        if (
            runtime.work_dir
            and ranks.leads
            and (is_end or last % (_KEPT * WINDOW) == 0)
        ):
            state.save(runtime.work_dir, key=key)
        total = settings.num_updates
        runtime.progress(
            Progress(stage="train", done=last, total=total, metrics=metrics)
        )
    net = _finished(state, images, settings=settings, seed=seed)
    if start is not None:
        told = ("name", "updates", "minutes", "seed", "commit")
        before = {k: start.card[k] for k in told if k in start.card}
        net.card = {**net.card, "start": {**begun, **before}}
    return net


def _is_before(until: float, ranks: Ranks) -> bool:
    return bool(ranks.led(torch.tensor(float(time.perf_counter() < until))))


def _begin(
    stored: Tensor, *, settings: EnergyTraining, start: EnergyNet | None, seed: int
) -> EnergyState:
    net = EnergyNet(
        num_filters=settings.num_filters,
        patch_size=settings.patch_size,
        in_channels=stored.shape[1],
        image_size=(stored.shape[2], stored.shape[3]),
        seed=seed,
    ).to(stored.device)
    if start is not None:
        wanted, given = _sizes(net), _sizes(start)
        if wanted != given:
            raise InputError(
                f"expected a network to start from of the sizes {wanted} (filters, "
                f"patch, channels, image), got {given}; change settings, or images"
            )
        net.load_state_dict(start.state_dict())
    stream = generator(seed, "energy-bank")
    rows = torch.randint(len(stored), (settings.bank_size,), generator=stream)
    bank = _real(stored, rows, settings=settings, stream=stream)
    return EnergyState(
        net=net,
        average=copy.deepcopy(net),
        adam=torch.optim.Adam(net.parameters(), lr=settings.lr),
        bank=bank,
        curves=[],
    )


def _sizes(net: EnergyNet) -> tuple[object, ...]:
    return net.num_filters, net.patch_size, net.in_channels, tuple(net.image_size)


def _health(stored: Tensor, *, curves: list[dict[str, float]]) -> Health:
    levels = stored.float() / 127.5 - 1
    mean, std = levels.mean().item(), levels.std().item()
    return Health(data_mean=mean, data_std=std, curves=curves)


def _window(
    state: EnergyState,
    stored: Tensor,
    last: int,
    *,
    settings: EnergyTraining,
    seed: int,
    runtime: Runtime,
    ranks: Ranks = ALONE,
) -> tuple[list[float], float]:
    # Trains up to an update; returns the gaps, and the drift of the last chain.
    gaps = []
    for update in range(state.update, last):
        stream = generator(seed, "energy", update)
        count = settings.batch_size
        rows = torch.randint(len(stored), (count,), generator=stream)
        real = _real(stored, rows, settings=settings, stream=stream)
        places = torch.randperm(len(state.bank), generator=stream)[:count]
        places = places.to(stored.device)
        folded = state.net.folded(runtime.compute_dtype()).detached()
        noise = shared_noise(tuple(real.shape), source=stream, device=real.device)
        walked = langevin(
            ranks.share(state.bank[places]),
            slope=folded.slope,
            noise=map(ranks.share, noise),
            steps=settings.chain_steps,
            walk=settings.walk,
        )
        walked = ranks.whole(walked, count)
        reborn = torch.rand(count, generator=stream) < settings.rejuvenation_rate
        reborn = reborn.to(stored.device)
        state.bank[places] = torch.where(reborn[:, None, None, None], real, walked)
        real, walked = ranks.share(real), ranks.share(walked)
        weight = len(real) / count
        gap = _learn(state, real, walked, update=update, settings=settings, ranks=ranks)
        gaps.append(ranks.total(gap * weight))
    state.update = last
    slopes = folded.slope(walked).float().flatten(1).norm(dim=1).mean()
    slopes = ranks.total(slopes * weight)
    length = settings.step_size * real[0].numel() ** 0.5
    drift = settings.walk.drift * slopes.item() / length
    return torch.stack(gaps).tolist(), drift


def _learn(
    state: EnergyState,
    real: Float[Tensor, "b c h w"],
    walked: Float[Tensor, "b c h w"],
    *,
    update: int,
    settings: EnergyTraining,
    ranks: Ranks = ALONE,
) -> Float[Tensor, ""]:
    # The loss over tau in the paper: a factor that Adam takes out again.
    energies = state.net.folded()(torch.cat([real, walked]))
    gap = energies[: len(real)].mean() - energies[len(real) :].mean()
    for group in state.adam.param_groups:
        group["lr"] = settings.rate(update)
    state.adam.zero_grad()
    ranks.backward(gap, state.net, weight=len(real) / settings.batch_size)
    state.adam.step()
    # The mean forgets the first weights quickly, and then at the rate asked for.
    rate = min(settings.average_rate, (1 + update) / (10 + update))
    with torch.no_grad():
        for mean, now in zip(
            state.average.parameters(), state.net.parameters(), strict=True
        ):
            mean.lerp_(now, 1 - rate)
    return gap.detach()


def _real(
    stored: UInt8[Tensor, "n c h w"],
    rows: Int64[Tensor, " b"],
    *,
    settings: EnergyTraining,
    stream: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    batch = stored[rows.to(stored.device)]
    if settings.augment == "crop_flip":
        batch = crop_and_flip(batch, pad=_SHIFT, stream=stream)
    levels = batch.float().contiguous() / 127.5 - 1
    noise = torch.randn(levels.shape, generator=stream).to(levels.device)
    return levels + settings.data_noise * noise


def _finished(
    state: EnergyState, images: Tensor, *, settings: EnergyTraining, seed: int
) -> EnergyNet:
    net = state.average if settings.average_rate > 0 else state.net
    net = net.cpu().eval().requires_grad_(False)
    sample = images[:: max(1, len(images) // 1000)][:1000]
    net.card = {
        "settings": asdict(settings),
        "seed": seed,
        "updates": state.update,
        "minutes": round(state.seconds / 60, 1),
        "num_images": len(images),
        "clean_quantiles": energy_quantiles(net, sample),
        "curves": state.curves,
    }
    return net


def energy_quantiles(
    net: EnergyNet, images: UInt8[Tensor, "n c h w"]
) -> dict[str, float]:
    """Return quantiles of the energies of some images.

    Args:
        net: The network.
        images: Clean images.

    Returns:
        The energy by the share of the images below it, such as "0.5".
    """
    with torch.no_grad():
        parts = [net(part.float() / 255) for part in images.split(256)]
    levels = torch.tensor(_QUANTILES)
    found = torch.cat(parts).quantile(levels).tolist()
    return {f"{q:g}": value for q, value in zip(_QUANTILES, found, strict=True)}
