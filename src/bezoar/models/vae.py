"""The disentangling autoencoder of D-VAE (Yu et al., ICML 2024, arXiv:2405.01460).

An encoder gives each place of a small grid a normal distribution. Two decoders read a
sample of it: one draws the image again, the other, told the class, the perturbation.
The published code carries the whole of a ResNet-18; what comes after the encoder
enters no loss there, and is not made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import InputError
from bezoar.models.resnet import BasicBlock
from bezoar.models.room import fill
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64

Embedding = Literal["spatial", "vector"]
PerturbationInput = Literal["latent", "features", "class", "mean"]
DecoderNorm = Literal["instance", "batch"]


class DVAENet(nn.Module):
    """An encoder with a decoder for images and one for class-wise perturbations.

    Args:
        num_classes: Classes that the perturbation decoder is told apart by.
        image_size: Height and width; multiples of 2 ** ``num_downsamples``.
        in_channels: Channels of the images.
        width: Channels of the first layer; 64 in the paper.
        latent_width: Channels of the latent grid; 256 in the paper.
        num_downsamples: Halvings of the grid: 1 to 3.
        embedding: What a class adds to the decoder's input: "spatial", a value for
            each place of the grid, or "vector", one for all places.
        perturbation_input: What the class is added to: "latent" (the sample, as
            published), "features" (of the encoder, past the rate limit), "class"
            (nothing), or "mean": no decoder, but what was added to all images of a
            class, which ``train_dvae`` estimates.
        decoder_norm: What the decoders normalise over: "instance", each image by
            itself (as published), or "batch", which keeps how bright an image is.
        seed: Seeds the first weights.

    Example:
        >>> net = DVAENet(10)
        >>> sum(p.numel() for p in net.parameters())
        1181382
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: tuple[int, int] = (32, 32),
        in_channels: int = 3,
        width: int = 64,
        latent_width: int = 256,
        num_downsamples: int = 1,
        embedding: Embedding = "spatial",
        perturbation_input: PerturbationInput = "latent",
        decoder_norm: DecoderNorm = "instance",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(image_size, num_downsamples)
        self.settings = {
            "num_classes": num_classes,
            "image_size": tuple(image_size),
            "in_channels": in_channels,
            "width": width,
            "latent_width": latent_width,
            "num_downsamples": num_downsamples,
            "embedding": embedding,
            "perturbation_input": perturbation_input,
            "decoder_norm": decoder_norm,
        }
        self.perturbation_input = perturbation_input
        scale = 2**num_downsamples
        self.latent_shape = (
            latent_width,
            image_size[0] // scale,
            image_size[1] // scale,
        )
        wide = scale * width
        with torch.device("meta"):  # no weights are drawn from the global stream
            self.stem = _encoder(in_channels, width, num_downsamples)
            self.heads = nn.Conv2d(wide, 2 * latent_width, 1)  # mean and log variance
            self.post = nn.Conv2d(latent_width, wide, 1)
            sizes = in_channels, width, num_downsamples
            self.image_decoder = _decoder(*sizes, norm=decoder_norm)
            if perturbation_input != "mean":
                self.perturbation_decoder = _decoder(*sizes, norm=decoder_norm)
                grid = self.latent_shape[1:] if embedding == "spatial" else (1, 1)
                self.classes = nn.Parameter(torch.empty(num_classes, wide, *grid))
        if perturbation_input == "mean":
            shape = num_classes, in_channels, *image_size
            self.register_buffer("means", torch.zeros(shape))
        _initialise(self, seed=seed)

    def encode(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[
        Float[Tensor, "b k i j"], Float[Tensor, "b z i j"], Float[Tensor, "b z i j"]
    ]:
        """Return the features, the mean and the logarithm of the variance.

        Args:
            images: Images in [0, 1].

        Returns:
            The encoder's features, and both in float32.
        """
        features = self.stem(images)
        mean, log_variance = self.heads(features).float().chunk(2, dim=1)
        return features, mean, log_variance

    def latent(
        self,
        mean: Float[Tensor, "b z i j"],
        log_variance: Float[Tensor, "b z i j"],
        noise: Float[Tensor, "b z i j"] | None,
    ) -> Float[Tensor, "b k i j"]:
        """Return what the decoders read.

        Args:
            mean: Of the latent grid.
            log_variance: Of the latent grid.
            noise: Standard normal; None takes the mean.

        Returns:
            The sample mean + exp(log_variance / 2) noise, after a 1x1 convolution.
        """
        sample = mean
        if noise is not None:
            sample = torch.addcmul(mean, (0.5 * log_variance).exp(), noise)
        decoded: Tensor = self.post(sample)
        return decoded

    def reconstruct(self, latent: Float[Tensor, "b k i j"]) -> Tensor:
        """Return the image that a latent grid stands for, in [0, 1].

        Args:
            latent: What ``latent`` returned.

        Returns:
            Images in float32.
        """
        return torch.sigmoid(self.image_decoder(latent).float())

    def perturbation(
        self, latent: Tensor, labels: Int64[Tensor, " b"], *, features: Tensor
    ) -> Tensor:
        """Return the perturbation that class and image lead to expect.

        Args:
            latent: What ``latent`` returned.
            labels: Class indices.
            features: Of the encoder.

        Returns:
            Perturbations in units of [0, 1], unbounded, in float32.
        """
        if self.perturbation_input == "mean":
            return self.get_buffer("means")[labels]
        told = self.classes[labels]
        read = {"latent": latent, "features": features}.get(self.perturbation_input)
        told = told.expand(-1, -1, *latent.shape[2:]) if read is None else read + told
        told = told.to(latent.dtype).contiguous(memory_format=torch.channels_last)
        shown: Tensor = self.perturbation_decoder(told)
        return shown.float()

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        noise: Float[Tensor, "b z i j"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return image, perturbation, mean and log variance, all in float32."""
        features, mean, log_variance = self.encode(images)
        latent = self.latent(mean, log_variance, noise)
        shown = self.perturbation(latent, labels, features=features)
        return self.reconstruct(latent), shown, mean, log_variance


def _encoder(channels: int, width: int, num_downsamples: int) -> nn.Sequential:
    # ResNet-18 for small images up to the first block of its last layer in use.
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        BasicBlock(width, width, stride=1),
        BasicBlock(width, width, stride=1),
    ]
    for level in range(num_downsamples):
        wide = width * 2**level
        if level > 0:
            layers.append(BasicBlock(wide, wide, stride=1))
        layers.append(BasicBlock(wide, 2 * wide, stride=2))
    return nn.Sequential(*layers)


def _decoder(
    channels: int, width: int, num_downsamples: int, *, norm: DecoderNorm
) -> nn.Sequential:
    wide, thin = width * 2**num_downsamples, max(1, width // 2)
    first = wide // 4 if num_downsamples > 1 else wide // 2
    second: list[nn.Module] = [Same(first, thin)]
    if num_downsamples > 1:
        second = [_larger(first, width), Same(width, thin)]
    return nn.Sequential(
        _larger(wide, wide // 2),
        Same(wide // 2, first),
        _norm(first, norm),
        nn.ReLU(inplace=True),
        *second,
        _norm(thin, norm),
        nn.ReLU(inplace=True),
        _larger(thin, channels) if num_downsamples > 2 else Same(thin, channels),
    )


def _norm(channels: int, norm: DecoderNorm) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=False)
    return InstanceNorm()


def _larger(channels: int, width: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)


class Same(nn.Conv2d):
    """A transposed 3x3 convolution that keeps the size, as the plain one it equals.

    The published decoders are made of transposed convolutions. With stride 1 such a
    one is a convolution with mirrored weights, which is faster; only the range of the
    first weights, which goes by the channels of the output, is another.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)


class InstanceNorm(nn.Module):
    """Brings each channel of each image to mean 0 and variance 1; learns nothing."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the feature maps normalised."""
        return functional.instance_norm(x, eps=1e-5)


def _initialise(network: DVAENet, *, seed: int) -> None:
    # Torch's own ranges, which the published code keeps, from a stream of ours.
    fill(network)
    stream = generator(seed, "dvae.weights")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # and the running statistics
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            plain = isinstance(module, nn.Conv2d) and not isinstance(module, Same)
            fan = module.in_channels if plain else module.out_channels
            bound = 1 / math.sqrt(fan * math.prod(module.kernel_size))
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=stream)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=stream)
    if network.perturbation_input == "mean":
        network.get_buffer("means").zero_()
        return
    with torch.no_grad():
        network.classes.normal_(generator=stream)


def _check_sizes(image_size: Sequence[int], num_downsamples: int) -> None:
    # The range first: 2 to a power from a file could take for ever.
    if not 1 <= num_downsamples <= 3 or any(
        side % 2**num_downsamples for side in image_size
    ):
        raise InputError(
            "expected 1 to 3 num_downsamples, and images whose sides are multiples of "
            f"2 ** num_downsamples, got {num_downsamples} and "
            f"{'x'.join(map(str, image_size))}; choose another --image-size"
        )
