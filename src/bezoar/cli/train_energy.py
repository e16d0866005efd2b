"""``bezoar train-energy``: a set of images to a network that ``purify`` walks down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from bezoar.cli.options import (
    READING,
    RUNNING,
    Count,
    Data,
    Reading,
    Running,
    parse,
    value_of,
)
from bezoar.cli.training import Order, Told, carry_out
from bezoar.data import ImageData
from bezoar.models import EnergyNet, load_energy, save_energy
from bezoar.runtime import Runtime
from bezoar.train import EnergyTraining
from bezoar.train import train_energy as train

_TRAINING = EnergyTraining.quick()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar train-energy``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    training, start = _TRAINING, value_of("--start", words)
    if start is not None:  # its sizes are the defaults, whatever else is typed
        net = load_energy(start)
        training = replace(
            training, num_filters=net.num_filters, patch_size=net.patch_size
        )
    return parse(train_energy, "train-energy", words, training=training)


def train_energy(
    data: Data,
    *,
    out: Annotated[str, arg(metavar="FILE")] = "energy.safetensors",
    start: Annotated[
        str | None, arg(metavar="NAME|FILE", help_behavior_hint="")
    ] = None,
    image_size: Count = None,
    seed: int = 0,
    json: bool = False,
    training: OmitArgPrefixes[EnergyTraining] = _TRAINING,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Running] = RUNNING,
) -> int:
    """Train an energy network, which --energy of purify takes, on a set of images.

    Some thousand images without labels; the cleaner, the better, but images poisoned
    by no more than 8/255 are said to do as well. The defaults are those of the network
    that ships and take about an hour on one core. A training that goes astray stops
    and says so; one that was killed goes on when the same command is given again.
    Several processes or GPUs share it with "torchrun --nproc-per-node 8 -m bezoar
    train-energy ...".

    Args:
        data: A folder of images, parquet files, webdataset tars, a saved Hugging Face
            data set, or the id of one on the Hub.
        out: File for the weights, ending in .safetensors; one of the same name is
            replaced.
        start: Network to go on from, such as cifar10-nf32: the name of one that ships,
            or a file of train-energy. Its sizes are taken, that of images as well.
        image_size: Height and width that images are resized to; else that of the
            network to start from, or the most common size up to 224.
        seed: Seeds the first weights, the order of the images and the chains.
        json: Print one JSON object instead of text.
        training: How to train it.
        reading: How to read the set.
        running: On what to run.

    Returns:
        0.
    """
    begun = None if start is None else load_energy(start)

    def trained(images: ImageData, runtime: Runtime) -> EnergyNet:
        # A bank larger than the set would hold every image several times.
        bank = max(training.batch_size, min(training.bank_size, len(images)))
        return train(
            images.images,
            settings=replace(training, bank_size=bank),
            start=begun,
            seed=seed,
            runtime=runtime,
        )

    return carry_out(
        Order(
            role="energy",
            data=data,
            out=out,
            image_size=image_size,
            sides=None if begun is None else begun.image_size,
            seed=seed,
            json=json,
            reading=reading,
            running=running,
            method="pure-ebm",
        ),
        train=trained,
        save=save_energy,
        tell=_told,
    )


def _told(net: EnergyNet) -> Told:
    minutes = net.card["minutes"]
    return Told(
        size=f"{net.num_filters} channels",
        course=("updates", f"{net.card['updates']:,} in {minutes} minutes"),
        figures={"minutes": minutes},
    )
