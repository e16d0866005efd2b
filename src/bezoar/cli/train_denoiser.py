"""``bezoar train-denoiser``: a set of images to a network that ``purify`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

from tyro.conf import OmitArgPrefixes, arg

from bezoar.cli.options import READING, RUNNING, Count, Data, Reading, Running, parse
from bezoar.cli.sharing import check_one_process
from bezoar.cli.training import Order, Told, carry_out
from bezoar.data import ImageData
from bezoar.models import UNet, save_denoiser
from bezoar.runtime import Runtime
from bezoar.train import DenoiserTraining
from bezoar.train import train_denoiser as train

_TRAINING = DenoiserTraining.quick()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar train-denoiser``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(train_denoiser, "train-denoiser", words)


def train_denoiser(
    data: Data,
    *,
    out: Annotated[str, arg(metavar="FILE")] = "denoiser.safetensors",
    image_size: Count = None,
    seed: int = 0,
    json: bool = False,
    training: OmitArgPrefixes[DenoiserTraining] = _TRAINING,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Running] = RUNNING,
) -> int:
    """Train a denoiser, which --denoiser of purify takes, on a set of images.

    Many images without labels, the cleaner, the better. The defaults are for a first
    try on a CPU; PureGen's are --channels 64 64 128 128 256 256 --num-blocks 2
    --epochs 150 --batch-size 256 --lr 1e-4, for a GPU. A training that was killed goes
    on from its last epoch when the same command is given again. It runs in one
    process.

    Args:
        data: A folder of images, parquet files, webdataset tars, a saved Hugging Face
            data set, or the id of one on the Hub.
        out: File for the weights, ending in .safetensors; one of the same name is
            replaced.
        image_size: Height and width that images are resized to; else the most common
            size up to 224.
        seed: Seeds the first weights, the order of the images and the noise.
        json: Print one JSON object instead of text.
        training: How to train it.
        reading: How to read the set.
        running: On what to run.

    Returns:
        0.
    """
    check_one_process("a denoiser")

    def trained(images: ImageData, runtime: Runtime) -> UNet:
        return train(images.images, settings=training, seed=seed, runtime=runtime)

    return carry_out(
        Order(
            role="denoiser",
            data=data,
            out=out,
            image_size=image_size,
            seed=seed,
            json=json,
            reading=reading,
            running=running,
            method="pure-ddpm",
        ),
        train=trained,
        save=save_denoiser,
        tell=_told,
    )


def _told(net: UNet) -> Told:
    epochs, loss = net.card["epochs"], cast("list[float]", net.card["losses"])[-1]
    return Told(
        size=f"{sum(p.numel() for p in net.parameters()):,} weights",
        course=("epochs", f"{epochs:,}, with a loss of {loss:.3f} in the last"),
        figures={"epochs": epochs, "loss": loss},
    )
