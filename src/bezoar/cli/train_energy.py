"""``bezoar train-energy``: a set of images to a network that ``purify`` walks down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from bezoar.cli.failures import DONE
from bezoar.cli.options import READING, RUNNING, Count, Data, Reading, Running, parse
from bezoar.cli.runs import check_outside
from bezoar.cli.sets import image_size_for, read_whole
from bezoar.cli.sharing import training_of
from bezoar.cli.text import facts, say, say_json, shown
from bezoar.errors import InputError
from bezoar.models import save_energy
from bezoar.train import EnergyTraining, forget_training
from bezoar.train import train_energy as train

_TRAINING = EnergyTraining.quick()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar train-energy``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(train_energy, "train-energy", words)


def train_energy(
    data: Data,
    *,
    out: Annotated[str, arg(metavar="FILE")] = "energy.safetensors",
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
        image_size: Height and width that images are resized to; else the most common
            size up to 224.
        seed: Seeds the first weights, the order of the images and the chains.
        json: Print one JSON object instead of text.
        training: How to train it.
        reading: How to read the set.
        running: On what to run.

    Returns:
        0.

    Raises:
        InputError: If the file's name has another end.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        raise InputError(
            f"expected --out to end in .safetensors, got {out!r}; the card goes beside "
            "it in .json"
        )
    check_outside(path, data, option="--out")
    source = reading.open(data)
    size = image_size_for(source, asked=image_size)
    with training_of(path, running) as (ranks, runtime):
        images, unreadable = read_whole(
            source, image_size=size, report=runtime.progress
        )
        # A bank larger than the set would hold every image several times.
        training = replace(training, bank_size=_bank(training, len(images)))
        net = train(
            images.images,
            settings=training,
            seed=seed,
            runtime=runtime,
        )
        if not ranks.leads:
            return DONE
        net.card = {"name": path.stem, **net.card}
        save_energy(net, path)
        forget_training(runtime.work_dir)
    if json:
        say_json(
            {
                "energy": str(path),
                "training": asdict(training),
                "seed": seed,
                "num_images": len(images),
                "num_unreadable": len(unreadable),
                "minutes": net.card["minutes"],
            }
        )
        return DONE
    height, width = size
    rows = [
        ("energy", f"{training.num_filters} channels in {path}"),
        ("images", f"{len(images):,} of {height}x{width} pixels"),
        ("updates", f"{training.num_updates:,} in {net.card['minutes']} minutes"),
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in unreadable[:3]),
        ("unreadable", f"{len(unreadable):,} in all" if len(unreadable) > 3 else ""),
        ("next", f"bezoar purify SET pure-ebm --energy {path} --out CLEAN"),
    ]
    say(facts(rows))
    return DONE


def _bank(training: EnergyTraining, num_images: int) -> int:
    return max(training.batch_size, min(training.bank_size, num_images))
