"""``bezoar purify``: a set to the same set without the poison."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from torch import nn
from tyro.conf import Fixed, OmitArgPrefixes, Suppress, arg

from bezoar.catalog import PURIFIERS, name_of, presets
from bezoar.cli.cleaning import Task, clean
from bezoar.cli.failures import DONE
from bezoar.cli.options import (
    READING,
    Count,
    Data,
    Place,
    Reading,
    check_preset,
    method_type,
    parse,
    preset_of,
)
from bezoar.cli.progress import bars
from bezoar.cli.purification_text import purification_json, purification_text
from bezoar.cli.runs import check_free, check_outside, was_cut_short
from bezoar.cli.sets import image_size_for
from bezoar.cli.spreading import SPREADING, Spreading
from bezoar.cli.text import say, say_json
from bezoar.engine import Purifier
from bezoar.errors import InputError
from bezoar.models import load_denoiser, load_energy
from bezoar.storage import RunLock

if TYPE_CHECKING:
    Method = Purifier
    Preset = str
else:
    Method = method_type(PURIFIERS)
    _PRESETS = {name: None for cls in PURIFIERS.values() for name in presets(cls)}
    Preset = Literal[("default", *_PRESETS)]

_DEFAULT = next(iter(PURIFIERS.values()))()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar purify``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    method = preset_of(PURIFIERS, words)
    return parse(purify, "purify", words, method=method, words=tuple(words))


def purify(
    data: Data,
    method: Method = _DEFAULT,
    *,
    out: Annotated[str, arg(metavar="PATH")],
    run: Place = None,
    preset: Preset = "default",
    energy: Annotated[str | None, arg(metavar="NAME|FILE")] = None,
    denoiser: Annotated[str | None, arg(metavar="FILE")] = None,
    image_size: Count = None,
    seed: int = 0,
    inference_batch_size: int = 64,
    block_size: int = 1024,
    json: bool = False,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Spreading] = SPREADING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Take poison out of the images of a set.

    Needs no list of poisoned images. The purified set is written in the format of the
    one given, its images as PNG and in one size; labels, names and all other columns
    stay. What could not be read is listed, and left out. A run that was killed goes on
    where it stopped when the same command is given again. Exit codes: 0 done, 2 error,
    3 nothing to purify.

    Args:
        data: A folder of class folders or of images, parquet files, webdataset tars, a
            saved Hugging Face data set, or the id of one on the Hub; it stays as it is.
        method: How to purify.
        out: Where to write the purified set: a new folder, or a new file where the set
            is one file.
        run: Folder for the report and for what a killed run needs to go on; OUT.run if
            it is not given.
        preset: Named settings of the method; options given beside it have precedence.
        energy: For pure-ebm, chain and energy-filter, the network to walk down or to
            rank by: the name of one that ships, or a file of train-energy;
            cifar10-nf32 if it is not given.
        denoiser: For pure-ddpm, chain and energy-filter, the file of the network to
            denoise with, of train-denoiser.
        image_size: Height and width that images are resized to; else the most common
            size up to 224.
        seed: Seeds everything random.
        inference_batch_size: Images per forward pass of a trained network; changes no
            result.
        block_size: Images per block; what a killed run has to do again.
        json: Print one JSON object instead of text.
        reading: How to read the set.
        running: On what to run, and who does the work.
        words: The command as it was typed.

    Returns:
        0.
    """
    check_preset(method, preset)
    networks = _networks(method, energy=energy, denoiser=denoiser)
    place = Path(out)
    folder = Path(f"{place}.run" if run is None else run)
    for option, path in (("--out", place), ("--run", folder)):
        check_outside(path, data, option=option)
    if not was_cut_short(folder):
        check_free(place, option="--out")
    source = reading.open(data)
    size = image_size_for(source, asked=image_size)
    with RunLock(folder), bars() as report:
        outcome = clean(
            Task(
                source=source,
                method=method,
                image_size=size,
                out=place,
                seed=seed,
                command=shlex.join(["bezoar", "purify", *words]),
                networks=networks,
            ),
            runtime=running.runtime(
                report,
                batch_size=inference_batch_size,
                block_size=block_size,
                work_dir=folder,
            ),
        )
    if json:
        say_json(purification_json(outcome))
    else:
        say(purification_text(outcome))
    return DONE


def _networks(
    method: Purifier, *, energy: str | None, denoiser: str | None
) -> dict[str, nn.Module]:
    asked: dict[str, tuple[str | None, Callable[[str], nn.Module]]] = {
        "energy": (energy, load_energy),
        "denoiser": (denoiser, load_denoiser),
    }
    wanted, found = inspect.signature(method.purify).parameters, {}
    for name, (given, load) in asked.items():
        if name not in wanted and given is not None:
            raise InputError(
                f"expected no --{name} for {name_of(method)}, got {given!r}; leave it "
                f"out or choose a method that takes a network of this kind"
            )
        if name in wanted:
            spec = given or wanted[name].default
            if spec is None:
                raise InputError(
                    f"expected --{name} for {name_of(method)}, got none; name the file "
                    f"of a network that `bezoar train-{name}` trained on images like "
                    "these"
                )
            found[name] = load(spec)
    return found
