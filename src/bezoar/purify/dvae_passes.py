"""What trained autoencoders do to images: one pass over a set, and what it shows."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bezoar.data import ImageData, content_keys
from bezoar.errors import InputError
from bezoar.models.cosine import inverse_cosine_transform
from bezoar.models.philox import normal_noise, stream_keys
from bezoar.models.vae import DVAENet
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Float, UInt8
from bezoar.train.vae import TrainedVAE

_CPU_TILE = 64  # images per kernel call: one shape, so one result at any batch size
_WAVES = 8  # of smooth noise, along each axis
_ABOVE = 1.25  # times the limit: beyond, the rate was not held


def run_pass(
    network: DVAENet,
    data: ImageData,
    *,
    reconstruct: bool,
    sample: bool,
    rounding: Literal["nearest", "floor"],
    stage: str,
    seed: int,
    runtime: Runtime,
    smooth_noise: float = 0.0,
) -> tuple[UInt8[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Take the perturbation away from images and, if asked, draw them again.

    In float32, image by image in tiles of one shape: neither company nor batch size
    change a result.

    Args:
        network: A trained autoencoder.
        data: Labelled images.
        reconstruct: Return what the autoencoder makes of the images less their
            perturbation, in place of these themselves.
        sample: Draw the latent grid; else its mean is taken.
        rounding: Of grey levels.
        stage: What the progress and the noise are called.
        seed: Seeds the noise, one stream per image content.
        runtime: Where and how to run; an engine's workers get blocks of images.
        smooth_noise: Height of a smooth random colour that is added to each image, in
            multiples of the root mean square of its class's pattern in that channel;
            for networks that have patterns.

    Returns:
        The images, and the perturbations that were subtracted, in float16.

    Raises:
        InputError: If network and images do not go together, or there is smooth noise
            and the network has no patterns.
    """
    _check_fits(network, data)
    if smooth_noise > 0 and network.perturbation_input != "mean":
        raise InputError(
            "expected a network with patterns of the classes for smooth_noise, got one "
            f"with the perturbation_input {network.perturbation_input!r}; set "
            "smooth_noise to 0"
        )
    work = _Pass(
        network=copy.deepcopy(network).eval().requires_grad_(False),
        reconstruct=reconstruct,
        sample=sample,
        rounding=rounding,
        stage=stage,
        seed=seed,
        runtime=runtime.for_parts(),
        smooth_noise=smooth_noise,
    )
    images = torch.empty_like(data.images)
    shown = torch.empty(data.images.shape, dtype=torch.float16)
    if runtime.engine is None:
        size = work.tile
    else:  # whole tiles to each: then it does not matter who computes them
        size = max(1, runtime.block_size // work.tile) * work.tile
    rows = torch.arange(len(data)).split(size)
    items = (
        (place, data.images[part], data.labels[part]) for place, part in enumerate(rows)
    )
    done = 0
    with (
        nullcontext(map(work, items))
        if runtime.engine is None
        else runtime.engine.running(work, items, device=runtime.device)
    ) as finished:
        for place, *result in finished:
            images[rows[place]], shown[rows[place]] = result
            done += len(rows[place])
            runtime.progress(
                Progress(stage=f"purify {stage}", done=done, total=len(data))
            )
    return images, shown


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pass:
    """What a pass does to some images; a worker gets it once."""

    network: DVAENet
    reconstruct: bool
    sample: bool
    rounding: Literal["nearest", "floor"]
    stage: str
    seed: int
    runtime: Runtime
    smooth_noise: float

    @property
    def tile(self) -> int:
        """Images per kernel call."""
        is_cpu = self.runtime.device.type == "cpu"
        return _CPU_TILE if is_cpu else self.runtime.batch_size

    def __call__(self, item: tuple[int, Tensor, Tensor]) -> tuple[int, Tensor, Tensor]:
        """Return the place of a part, its images, and what was subtracted."""
        place, images, labels = item
        self.network.to(self.runtime.device)
        parts = [
            self._tile(*part)
            for part in zip(
                images.split(self.tile), labels.split(self.tile), strict=True
            )
        ]
        left, found = zip(*parts, strict=True)
        return place, torch.cat(left), torch.cat(found)

    @torch.inference_mode()
    def _tile(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        net, device, keys = self.network, self.runtime.device, content_keys(images)

        def noise(name: str) -> Tensor | None:
            if not self.sample:
                return None
            drawn = keyed_noise(
                net, keys, name=f"{self.stage}.{name}", seed=self.seed, device=device
            )
            return _filled(drawn, self.tile)

        given = _filled(images, self.tile).to(device).float() / 255
        rows = _filled(labels, self.tile).to(device)
        if net.perturbation_input == "mean":  # which asks for nothing of the image
            found = net.get_buffer("means")[rows]
        else:
            features, mean, log_variance = net.encode(given)
            latent = net.latent(mean, log_variance, noise("perturbation"))
            found = net.perturbation(latent, rows, features=features)
        left = (given - found + self._smooth(keys, rows)).clamp(0, 1)
        if self.reconstruct:
            _, mean, log_variance = net.encode(left)
            left = net.reconstruct(net.latent(mean, log_variance, noise("image")))
        count = len(images)
        stored_left = stored(left[:count], rounding=self.rounding).cpu()
        return stored_left, found[:count].half().cpu()

    def _smooth(self, keys: Sequence[str], rows: Tensor) -> Tensor | float:
        if self.smooth_noise == 0:
            return 0.0
        means = self.network.get_buffer("means")
        _, channels, height, width = means.shape
        waves = channels, min(_WAVES, height), min(_WAVES, width)
        streams = (generator(self.seed, f"dvae.smooth.{self.stage}", k) for k in keys)
        drawn = torch.stack([torch.randn(waves, generator=s) for s in streams])
        drawn = _filled(drawn, self.tile)  # one shape, as everywhere
        down, across = (torch.arange(count).square() for count in waves[1:])
        fall = (1 + (down[:, None] + across).sqrt()) ** -1.5
        shape = inverse_cosine_transform(drawn * fall, size=(height, width))
        heights = means.square().mean((2, 3), keepdim=True).sqrt()[rows]
        # The first wave, which is even, has the pattern's height.
        noise = math.sqrt(height * width) * shape.to(means.device)
        return self.smooth_noise * heights * noise


def keyed_noise(
    network: DVAENet, keys: Sequence[str], *, name: str, seed: int, device: torch.device
) -> Float[Tensor, "b z i j"]:
    """Draw the noise of latent grids, one stream per image.

    A CPU draws it from torch's generators; any other device from counters, other
    numbers of the same kind.

    Args:
        network: The autoencoder.
        keys: Names of the images, by content.
        name: Name of the pass.
        seed: The seed given.
        device: Where the noise is wanted.

    Returns:
        Standard normal noise.
    """
    shape, stream = network.latent_shape, f"dvae.latent.{name}"
    if device.type != "cpu":
        words = stream_keys(keys, seed=seed, stream=stream).to(device)
        return normal_noise(words, step=0, shape=shape)
    streams = (generator(seed, stream, key) for key in keys)
    return torch.stack([torch.randn(shape, generator=s) for s in streams])


def stored(
    images: Float[Tensor, "n c h w"], *, rounding: Literal["nearest", "floor"]
) -> UInt8[Tensor, "n c h w"]:
    """Return images in storage form.

    Args:
        images: Images in [0, 1].
        rounding: "nearest", or "floor", which darkens them by half a grey level.

    Returns:
        The images in whole grey levels.
    """
    levels = images.clamp(0, 1) * 255
    whole = levels.round() if rounding == "nearest" else levels.floor()
    return whole.to(torch.uint8)


def perturbation_columns(
    perturbations: Mapping[str, Float[Tensor, "n c h w"]], data: ImageData
) -> dict[str, Float[Tensor, " n"]]:
    """Return what the perturbations of all stages together are like.

    Args:
        perturbations: What the stages subtracted.
        data: Labelled images.

    Returns:
        "perturbation_l2" in units of [0, 1], and "perturbation_cosine" to the mean
        over the class. On clean images it is high too: the decoder is told the class.
    """
    parts = list(perturbations.values())
    size = (len(data.class_names), *data.images.shape[1:])
    sums = torch.zeros(size)
    for shown in parts:  # a class at a time would copy the set
        sums.index_add_(0, data.labels, shown.float())
    directions = sums.flatten(1)
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    lengths, cosines = [], []
    for part in torch.arange(len(data)).split(1024):
        total = torch.stack([p[part].float() for p in parts]).sum(0).flatten(1)
        length = total.norm(dim=1)
        along = (total * directions[data.labels[part]]).sum(1)
        lengths.append(length)
        cosines.append(along / length.clamp(min=1e-12))
    return {
        "perturbation_l2": torch.cat(lengths),
        "perturbation_cosine": torch.cat(cosines),
    }


def rates(made: Mapping[str, TrainedVAE], data: ImageData) -> dict[str, float]:
    """Return the rates that the stages came to.

    Args:
        made: The autoencoders by stage.
        data: The images.

    Returns:
        For each stage that was trained "kl" (nats for a place) and "bits_per_pixel".
    """
    found = {}
    for stage, trained in made.items():
        if trained.history:
            kl = trained.history[-1]["kl"]
            _, rows, columns = trained.network.latent_shape
            pixels = data.images.shape[2] * data.images.shape[3]
            found[f"{stage}_kl"] = kl
            bits = kl * rows * columns / math.log(2) / pixels
            found[f"{stage}_bits_per_pixel"] = bits
    return found


def rate_health(
    made: Mapping[str, TrainedVAE], limits: Mapping[str, float], kl_weight: float
) -> tuple[str, ...]:
    """Return a warning for each stage whose rate the limit did not hold.

    Args:
        made: The autoencoders by stage.
        limits: Nats by stage.
        kl_weight: Weight of the rate; 0 asks for no limit.

    Returns:
        Sentences.
    """
    return tuple(
        f"the {stage} stage ended at {trained.history[-1]['kl']:.2f} nats for a place, "
        f"above its limit of {limits[stage]:g}: more noise passes than was asked for; "
        "train longer or raise kl_weight"
        for stage, trained in made.items()
        if kl_weight > 0
        and trained.history
        and trained.history[-1]["kl"] > _ABOVE * limits[stage]
    )


def _filled(values: Tensor, size: int) -> Tensor:
    missing = size - len(values)
    if missing == 0:
        return values
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])


def _check_fits(network: DVAENet, data: ImageData) -> None:
    made_for = network.settings
    channels, height, width = data.images.shape[1:]
    wanted = {
        "num_classes": len(data.class_names),
        "image_size": (height, width),
        "in_channels": channels,
    }
    found = {name: made_for[name] for name in wanted}
    if found != wanted:
        raise InputError(
            f"expected networks that were trained on images like these ({wanted}), got "
            f"ones for {found}; train them on this set"
        )
