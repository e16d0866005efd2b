"""``bezoar repair``: a model to a copy that has forgotten a backdoor."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from torch import nn
from tyro.conf import Fixed, OmitArgPrefixes, Positional, Suppress, arg

from bezoar.catalog import PAIR_REPAIRS, REPAIRS, name_of, presets
from bezoar.cli.failures import DONE
from bezoar.cli.mending import Mending, Trial, mend
from bezoar.cli.mending_encoders import mend_encoder, repairs_encoder
from bezoar.cli.mending_pairs import PairMending, mend_pairs
from bezoar.cli.options import (
    READING,
    RUNNING,
    Count,
    Place,
    Reading,
    Running,
    check_preset,
    method_type,
    parse,
    preset_of,
)
from bezoar.cli.pair_options import PAIRING, Pairing
from bezoar.cli.progress import bars
from bezoar.cli.repair_text import repair_json, repair_text
from bezoar.cli.runs import check_free, check_outside
from bezoar.cli.text import say, say_json
from bezoar.data import ImageSource, PairSource
from bezoar.errors import InputError
from bezoar.models import load_dual_encoder, load_encoder, load_model
from bezoar.storage import load_detection

if TYPE_CHECKING:
    Method = Any
    Preset = str
else:
    Method = method_type({**REPAIRS, **PAIR_REPAIRS})
    _EVERY = [*REPAIRS.values(), *PAIR_REPAIRS.values()]
    _PRESETS = {name: None for cls in _EVERY for name in presets(cls)}
    Preset = Literal[("default", *_PRESETS)]

_DEFAULT = next(iter(REPAIRS.values()))()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar repair``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    method = preset_of({**REPAIRS, **PAIR_REPAIRS}, words)
    return parse(repair, "repair", words, method=method, words=tuple(words))


def repair(
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    method: Method = _DEFAULT,
    *,
    data: Annotated[str, arg(metavar="DATA")],
    detection: Place = None,
    out: Annotated[str, arg(metavar="PATH")],
    test: Place = None,
    attack: Place = None,
    preset: Preset = "default",
    image_size: Count = None,
    seed: int = 0,
    json: bool = False,
    unsafe_pickle: bool = False,
    reading: OmitArgPrefixes[Reading] = READING,
    pairing: OmitArgPrefixes[Pairing] = PAIRING,
    running: OmitArgPrefixes[Running] = RUNNING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Make a copy of a model forget a backdoor.

    Needs no list of poisoned images and no trigger: the run that "bezoar detect" wrote
    tells which images look suspicious. Of an image-text model (ubt) it needs the pairs
    of images and captions, and a clean --reference such as the public model that it
    started from. Of an image encoder (mimic, distillation, encoder-fine-tuning,
    lipschitz-pruning, bcu) it needs clean images without labels, and no detection: what
    is hidden in it is not looked for. The model and the data stay as they are; where
    nothing was flagged, the copy is unchanged. Exit codes: 0 done, or nothing to
    forget; 2 error; 3 no images.

    Args:
        model: The model, in any form that "bezoar detect" takes; one that the run
            trained lies in its folder as model.safetensors. For ubt an image-text
            model: a folder of ours or of transformers, or open_clip:NAME@weights. An
            encoder: a folder of ours or of transformers, a CLIP of which the image
            tower is taken, timm:NAME@WEIGHTS, open_clip:NAME@WEIGHTS or
            file.py:factory.
        method: How to repair.
        data: The images that were scored, with the labels they had then; for ubt
            pairs: a table filepath,title, webdataset, parquet or a saved data set; for
            an encoder clean images, whose labels are not looked at.
        detection: Folder of the run that "bezoar detect" wrote on these images.
        out: Folder for the repaired model and how it came about; it must be new.
        test: Clean, labelled test images, to measure the model before and after; for
            an encoder images without labels to compare its vectors on, else a tenth of
            the data is kept out for it.
        attack: The manifest that "bezoar attack" wrote, to measure on the test images
            how often its trigger works before and after; the repair does not see it.
        preset: Named settings of the method; options given beside it have precedence.
        image_size: Height and width that images are resized to; else what the model
            was made for, or the most common size up to 224.
        seed: Seeds everything random.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        reading: How to read the set.
        pairing: For image-text models.
        running: On what to run.
        words: The command as it was typed.

    Returns:
        0.
    """
    check_preset(method, preset)
    folder = Path(out)
    is_of_pairs = type(method) in PAIR_REPAIRS.values()
    is_of_encoder = repairs_encoder(method, model)
    if not is_of_pairs:
        pairing.check_unused()
    _check_options(method, detection=detection, test=test, attack=attack)
    if is_of_encoder:
        _check_no_attack(attack)
    _check_places(folder, model=model, data=data)
    found = None if detection is None else load_detection(Path(detection))
    pairs = pairing.open(data, reading=reading) if is_of_pairs else None
    source = reading.open(data) if pairs is None else pairs.images
    trial = None
    if test is not None:
        clean = replace(reading, split="test").open(test)
        trial = Trial(source=clean, manifest=None if attack is None else Path(attack))
    task = Mending(
        model=load_encoder(model, unsafe_pickle=unsafe_pickle)
        if is_of_encoder
        else _loaded(model, pairs, source, unsafe_pickle=unsafe_pickle),
        spec=model,
        method=method,
        source=source,
        detection=found,
        run=None if detection is None else Path(detection),
        trial=trial,
        image_size=image_size,
        out=folder,
        seed=seed,
        command=shlex.join(["bezoar", "repair", *words]),
    )
    reference = pairing.clean_model(unsafe_pickle=unsafe_pickle)
    with bars() as report:
        runtime = running.runtime(report)
        if pairs is None:
            outcome = (mend_encoder if is_of_encoder else mend)(task, runtime=runtime)
        else:
            asked = PairMending(
                task=task,
                pairs=pairs,
                reference=reference,
                template=pairing.template,
            )
            outcome = mend_pairs(asked, runtime=runtime)
    if json:
        say_json(repair_json(outcome))
    else:
        say(repair_text(outcome))
    return DONE


def _loaded(
    model: str,
    pairs: PairSource | None,
    source: ImageSource,
    *,
    unsafe_pickle: bool,
) -> nn.Module:
    if pairs is not None:
        return load_dual_encoder(model, unsafe_pickle=unsafe_pickle)
    classes = len(source.class_names) or None
    return load_model(model, num_classes=classes, unsafe_pickle=unsafe_pickle)


def _check_options(
    method: object, *, detection: str | None, test: str | None, attack: str | None
) -> None:
    takes = inspect.signature(type(method).repair).parameters  # type: ignore[attr-defined]
    needed = takes.get("detection")
    if needed and needed.default is inspect.Parameter.empty and detection is None:
        raise InputError(
            f"expected a --detection for {name_of(method)}, got none; give the folder "
            'of the run that "bezoar detect" wrote'
        )
    if "detection" not in takes and detection is not None:
        raise InputError(
            f"expected no --detection for {name_of(method)}, got {detection!r}; leave "
            "it out"
        )
    if attack is not None and test is None:
        raise InputError(
            "expected --test beside --attack, got none; give clean test images to show "
            "the trigger on"
        )


def _check_no_attack(attack: str | None) -> None:
    if attack is not None:
        raise InputError(
            f"expected no --attack for an encoder, got {attack!r}; an encoder has no "
            "classes to count hits in, leave it out"
        )


def _check_places(folder: Path, *, model: str, data: str) -> None:
    check_outside(folder, data, option="--out")
    check_free(folder, option="--out")
    if folder.resolve() == Path(model).resolve():
        raise InputError(
            f"expected an --out other than the model's own folder, got {model!r}; the "
            "model stays as it is, choose another place"
        )
