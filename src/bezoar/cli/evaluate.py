"""``bezoar evaluate``: how a classifier does on clean images, and under a trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from bezoar.attacks import attack_from_manifest, read_manifest
from bezoar.cli.failures import DONE
from bezoar.cli.options import RUNNING, Count, Data, Place, Reading, Running, parse
from bezoar.cli.progress import bars
from bezoar.cli.sets import check_classes, image_size_for, read_whole
from bezoar.cli.text import facts, percent, say, say_json, shown
from bezoar.metrics import evaluate as measure
from bezoar.models import check_model_output, load_model
from bezoar.results import Evaluation

_READING = Reading(split="test")


def command(words: Sequence[str]) -> int:
    """Run ``bezoar evaluate``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(evaluate, "evaluate", words)


def evaluate(
    data: Data,
    *,
    model: Annotated[str, arg(metavar="SPEC")],
    attack: Place = None,
    image_size: Count = None,
    batch_size: int = 64,
    json: bool = False,
    unsafe_pickle: bool = False,
    reading: OmitArgPrefixes[Reading] = _READING,
    running: OmitArgPrefixes[Running] = RUNNING,
) -> int:
    """Measure a classifier: accuracy on clean images, and how often a trigger works.

    Images that are of the target class already are left out of the attack success
    rate, and the rate at which the same images go there without the trigger is given
    beside it: the floor of a model without a backdoor.

    Args:
        data: Clean, labelled test images that the model was not trained on, in any
            format that "bezoar detect" takes.
        model: The model, in any form that "bezoar detect" takes.
        attack: The manifest that "bezoar attack" wrote; its trigger is shown.
        image_size: Height and width that images are resized to; else what the model
            was made for, or the most common size up to 224.
        batch_size: Images per forward pass.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        reading: How to read the set.
        running: On what to run.

    Returns:
        0.
    """
    source = reading.open(data)
    classes = len(source.class_names) or None
    loaded = load_model(model, num_classes=classes, unsafe_pickle=unsafe_pickle)
    remarks = [check_classes(loaded, source)]
    size = image_size_for(source, asked=image_size, model=loaded)
    trigger = None
    if attack is not None:
        trigger = attack_from_manifest(Path(attack))
        remarks.append(_size_remark(read_manifest(Path(attack)).image_shape[1:], size))
    with bars() as report:
        images, unreadable = read_whole(source, image_size=size, report=report)
        check_model_output(loaded, images.images[:2].float() / 255, classes)
        found = measure(
            loaded,
            images,
            attack=trigger,
            runtime=running.runtime(report, batch_size=batch_size),
        )
    if json:
        notes = [text for text in remarks if text]
        counts = {"num_unreadable": len(unreadable), "remarks": notes}
        say_json({**asdict(found), **counts})
    else:
        say(_text(found, images.class_names, len(unreadable), remarks))
    return DONE


def _size_remark(made_for: tuple[int, ...], size: tuple[int, int]) -> str:
    if tuple(made_for) == size:
        return ""
    return (
        f"the trigger was made for images of {made_for[0]}x{made_for[1]} pixels and is "
        f"shown on {size[0]}x{size[1]}; give the --image-size that the poisoned set has"
    )


def _text(
    found: Evaluation,
    class_names: tuple[str, ...],
    num_unreadable: int,
    remarks: Sequence[str],
) -> str:
    rows = [
        (
            "clean accuracy",
            f"{percent(found.clean_accuracy)} of {found.num_clean:,} images",
        )
    ]
    if found.attack_success_rate is not None and found.target_class is not None:
        target = f"{found.target_class}, {shown(class_names[found.target_class])!r}"
        rows += [
            ("target class", target),
            (
                "attack success rate",
                f"{percent(found.attack_success_rate)} of {found.num_triggered:,} "
                "images of other classes go there with the trigger",
            ),
            ("floor", f"{percent(found.clean_target_rate or 0)} go there without it"),
        ]
    if found.target_class_accuracy is not None:
        own = f"{percent(found.target_class_accuracy)} of the target class's own images"
        rows.append(("target accuracy", own))
    rows.append(("unreadable", f"{num_unreadable:,} images" * (num_unreadable > 0)))
    rows += [("note", shown(text)) for text in remarks]
    return facts(rows)
