"""``bezoar train``: a set of images to a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from bezoar.cli.failures import DONE
from bezoar.cli.options import (
    NETWORK,
    READING,
    RUNNING,
    Count,
    Data,
    Network,
    Reading,
    Running,
    parse,
)
from bezoar.cli.runs import check_outside
from bezoar.cli.sets import image_size_for, read_whole
from bezoar.cli.sharing import training_of
from bezoar.cli.text import facts, percent, say, say_json, shown
from bezoar.cli.victim import check_labels_to_train
from bezoar.errors import InputError
from bezoar.metrics import evaluate
from bezoar.models import save_model
from bezoar.train import Training, forget_training, train_classifier

_TRAINING = Training()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar train``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(train, "train", words)


def train(
    data: Data,
    *,
    out: Annotated[str, arg(metavar="FILE")] = "model.safetensors",
    image_size: Count = None,
    seed: int = 0,
    json: bool = False,
    network: OmitArgPrefixes[Network] = NETWORK,
    training: OmitArgPrefixes[Training] = _TRAINING,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Running] = RUNNING,
) -> int:
    """Train a classifier on a set of images.

    The weights are written as safetensors, with a JSON beside them that tells what
    they belong to; --model of the other verbs takes the path. A training that was
    killed goes on from its last epoch when the same command is given again. Several
    processes or GPUs share it with "torchrun --nproc-per-node 8 -m bezoar train ...".

    Args:
        data: A folder of class folders, parquet files, webdataset tars, a saved
            Hugging Face data set, or the id of one on the Hub.
        out: File for the weights, ending in .safetensors; one of the same name is
            replaced.
        image_size: Height and width that images are resized to; else the most common
            size up to 224.
        seed: Seeds the first weights, the order of the images and the augmentation.
        json: Print one JSON object instead of text.
        network: The network to train.
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
            f"expected --out to end in .safetensors, got {out!r}; the settings go "
            "beside it in .json"
        )
    check_outside(path, data, option="--out")
    source = reading.open(data)
    check_labels_to_train(source)
    size = image_size_for(source, asked=image_size)
    architecture = network.architecture(source.class_names, size)
    with training_of(path, running) as (ranks, runtime):
        images, unreadable = read_whole(
            source, image_size=size, report=runtime.progress
        )
        model = train_classifier(
            architecture.build(seed),
            data=images,
            settings=training,
            seed=seed,
            runtime=runtime,
        )
        if not ranks.leads:
            return DONE
        save_model(model, path, architecture=architecture)
        forget_training(runtime.work_dir)
        accuracy = evaluate(model, images, runtime=runtime).clean_accuracy
    if json:
        say_json(
            {
                "model": str(path),
                "architecture": asdict(architecture),
                "training": asdict(training),
                "seed": seed,
                "num_images": len(images),
                "num_unreadable": len(unreadable),
                "training_accuracy": accuracy,
            }
        )
        return DONE
    height, width = size
    rows = [
        ("model", f"{architecture.name} of width {architecture.width} in {path}"),
        ("images", f"{len(images):,} of {height}x{width} pixels"),
        ("classes", f"{len(images.class_names)}"),
        ("accuracy", f"{percent(accuracy)} on the images it was trained on"),
        *(("unreadable", f"{shown(u.id)}: {u.reason}") for u in unreadable[:3]),
        ("unreadable", f"{len(unreadable):,} in all" if len(unreadable) > 3 else ""),
    ]
    say(facts(rows))
    return DONE
