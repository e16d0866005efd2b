"""``bezoar guard``: from a doubtful set to a verdict, a clean set and a clean model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Fixed, OmitArgPrefixes, Suppress, arg

from bezoar.catalog import ALIASES, DETECTORS, PURIFIERS, REPAIRS
from bezoar.cli.guard_text import guard_json, guard_text
from bezoar.cli.options import (
    NETWORK,
    READING,
    Count,
    Data,
    Network,
    Place,
    Reading,
    Spec,
    parse,
)
from bezoar.cli.progress import bars
from bezoar.cli.sets import image_size_for
from bezoar.cli.spreading import SPREADING, Spreading
from bezoar.cli.text import say, say_json
from bezoar.data import ImageSource
from bezoar.errors import InputError
from bezoar.guarding import Guard, Tools
from bezoar.guarding import guard as run_guard
from bezoar.report import read_decisions

Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
Names = Annotated[str, arg(metavar="NAMES", help_behavior_hint="")]
_RULE = Guard()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar guard``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(guard, "guard", words, words=tuple(words))


def guard(
    data: Data,
    *,
    out: Annotated[str, arg(metavar="PATH")] = "bezoar-guard",
    model: Spec = None,
    encoder: Spec = None,
    clip: Spec = None,
    reference: Spec = None,
    test: Place = None,
    attack: Place = None,
    skip: Names = "",
    decisions: Place = None,
    detector: Name = None,
    purifier: Name = None,
    method: Name = None,
    epochs: Count = None,
    image_size: Count = None,
    seed: int = 0,
    batch_size: int = 64,
    block_size: int = 1024,
    json: bool = False,
    unsafe_pickle: bool = False,
    rule: OmitArgPrefixes[Guard] = _RULE,
    network: OmitArgPrefixes[Network] = NETWORK,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Spreading] = SPREADING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Check a set, find the poison, write the set without it, and mend the model.

    The steps are verify, screen, learn, detect, diagnose, decide, purify, write, train,
    repair, measure and report; one that cannot run says why, and the rest goes on. A
    run that was killed goes on where it stopped when the same command is given again,
    and what a changed option does not touch is not done again. The set and the model
    stay as they are. Exit codes: 0 nothing found, 1 poison found, 2 error, or nothing
    could be judged, 3 nothing to scan.

    Args:
        data: A folder of class folders or of images, parquet files, webdataset tars, a
            saved Hugging Face data set, or the id of one on the Hub.
        out: Folder for everything that is found and made: report.html, the clean set
            in clean, a clean model in trained or repaired.
        model: A classifier that was trained on these images, in any form that "bezoar
            detect" takes; one is trained if it is not given.
        encoder: An encoder instead, in any form that "bezoar detect" takes, for images
            without labels: images that lie far from all others in its features are
            ranked, and a trigger is looked for in the encoder.
        clip: An image-text model that was trained on these images and their captions: a
            folder or id that transformers opens, open_clip:NAME@WEIGHTS, or a folder
            of ours. Pairs that planted a backdoor are searched, and forgotten.
        reference: A clean image-text model of the same kind, to compare it with.
        test: Clean, labelled test images, to measure the model before and after.
        attack: The manifest that "bezoar attack" wrote, to measure on the test images
            how often its trigger works; no other step looks at it.
        skip: Steps that are not to be done, by commas, such as purify,train.
        decisions: The file that the page of this run saved: what it keeps and drops is
            kept and dropped whatever the rule says.
        detector: How to detect: cd, ac, ss, strip, li, no or their full names, with
            its defaults; Cognitive Distillation if it is not given.
        purifier: How to purify, by the name that "bezoar purify" has for it;
            shortcut-squeezing if it is not given.
        method: How to repair a given model, by the name that "bezoar repair" has for
            it: unlearning for a classifier if it is not given, none for an encoder.
        epochs: Passes over the set when a classifier is trained.
        image_size: Height and width that images are resized to; else what the model
            was made for, or the most common size up to 224.
        seed: Seeds everything random.
        batch_size: Images per forward pass.
        block_size: Images per block; what a killed run has to do again.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        rule: What becomes of an image.
        network: The network to train when no model is given.
        reading: How to read the set.
        running: On what to run, and who does the work.
        words: The command as it was typed.

    Returns:
        1 if poison was found, else 0; 2 if nothing could be judged or a step failed.

    Raises:
        InputError: If options make no sense together.
    """
    tools = _tools(
        detector=detector,
        purifier=purifier,
        method=method,
        epochs=epochs,
    )
    if model is not None and (network != NETWORK or epochs is not None):
        raise InputError(
            "expected no --arch, --width or --epochs beside --model, got some; leave "
            "them out, or leave out --model to train one"
        )
    source = data if clip is not None else reading.open(data)
    if (
        isinstance(source, ImageSource)
        and model is None
        and encoder is None
        and source.class_names
    ):
        size = image_size_for(source, asked=image_size)
        architecture = network.architecture(source.class_names, size)
        tools = replace(tools, architecture=architecture)
    with bars() as report:
        guarded = run_guard(
            source,
            out=out,
            model=model,
            encoder=encoder,
            clip=clip,
            reference=reference,
            test=None if test is None else replace(reading, split="test").open(test),
            attack=attack,
            rule=rule,
            tools=tools,
            skip=[name.strip() for name in skip.split(",") if name.strip()],
            decisions=None if decisions is None else read_decisions(Path(decisions)),
            image_size=image_size,
            unsafe_pickle=unsafe_pickle,
            command=shlex.join(["bezoar", "guard", *words]),
            seed=seed,
            runtime=running.runtime(
                report, batch_size=batch_size, block_size=block_size
            ),
        )
    if json:
        say_json(guard_json(guarded))
    else:
        say(guard_text(guarded))
    return guarded.exit_code


def _tools(
    *,
    detector: str | None,
    purifier: str | None,
    method: str | None,
    epochs: int | None,
) -> Tools:
    tools = Tools()
    chosen: dict[str, Any] = {}
    for field, name, known, option in (
        (
            "detector",
            detector and ALIASES.get(detector, detector),
            DETECTORS,
            "detector",
        ),
        ("purifier", purifier, PURIFIERS, "purifier"),
        ("repair", method, REPAIRS, "method"),
    ):
        if name is not None:
            chosen[field] = _method(name, known, option=option)
    if epochs is not None:
        for field in ("training", "final_training"):
            chosen[field] = replace(getattr(tools, field), epochs=epochs)
    return replace(tools, **chosen)


def _method(name: str, known: Mapping[str, type[Any]], *, option: str) -> Any:
    if name not in known:
        raise InputError(
            f"expected a --{option} such as {', '.join(known)}, got {name!r}; correct "
            "the name"
        )
    return known[name]()
