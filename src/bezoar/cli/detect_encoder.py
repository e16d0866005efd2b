"""``bezoar detect`` on an encoder: clean images to a verdict on the encoder itself."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Fixed, OmitArgPrefixes, Suppress, UseAppendAction, arg

from bezoar.catalog import DIAGNOSES
from bezoar.cli.failures import DONE, FOUND
from bezoar.cli.options import (
    READING,
    RUNNING,
    Count,
    Data,
    Place,
    Reading,
    Running,
    parse,
)
from bezoar.cli.progress import bars
from bezoar.cli.runs import check_free, check_outside, versions
from bezoar.cli.sets import fingerprint_of, image_size_for, read_whole
from bezoar.cli.text import facts, percent, say, say_json, shown
from bezoar.detect import EncoderInversion
from bezoar.models import backbone_of, fingerprint, load_encoder
from bezoar.results import Diagnosis
from bezoar.storage import plain_diagnosis, save_diagnosis, write_run

_INVERSION = EncoderInversion()
_FILES = (
    "diagnosis.json",
    "patch.safetensors",
    "mask.png",
    "pattern.png",
    "run.json",
)


def command(words: Sequence[str]) -> int:
    """Run ``bezoar detect`` with ``--encoder``.

    Args:
        words: What stands after the verb; the method may be named, there is but one.

    Returns:
        The exit code.
    """
    names = [word for place, word in enumerate(words) if place != 1 or not _is(word)]
    return parse(detect_encoder, "detect", names, words=tuple(words))


def _is(word: str) -> bool:
    return word in DIAGNOSES


def detect_encoder(
    data: Data,
    *,
    encoder: Annotated[str, arg(metavar="SPEC")],
    clean_encoder: UseAppendAction[tuple[str, ...]] = (),
    out: Place = None,
    image_size: Count = None,
    seed: int = 0,
    json: bool = False,
    unsafe_pickle: bool = False,
    search: OmitArgPrefixes[EncoderInversion] = _INVERSION,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Running] = RUNNING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Say whether an image encoder seems to hold a backdoor.

    Searches for a small patch that makes all images look alike to the encoder; needs
    no labels and no trigger. It looks at the encoder and not for poison in the images.
    Triggers of other kinds are not found, and the verdict was measured on small
    encoders alone. Exit codes: 0 nothing found, 1 backdoor found, 2 error,
    3 no images.

    Args:
        data: Images such as the encoder is used for, in any format; labels are not
            looked at.
        encoder: A folder that save_encoder or transformers wrote, or an id on the Hub;
            a CLIP, of which the image tower is taken; timm:NAME@WEIGHTS,
            open_clip:NAME@WEIGHTS or file.py:factory.
        clean_encoder: An encoder of the same kind known to be clean, to compare with;
            may be given several times.
        out: Folder for the verdict and the patch; it must be new. Nothing is written
            if it is not given.
        image_size: Height and width that images are resized to; else what the encoder
            was made for, or the most common size up to 224.
        seed: Seeds everything random.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        search: How to search.
        reading: How to read the set.
        running: On what to run.
        words: The command as it was typed.

    Returns:
        1 if a backdoor is reported, else 0.
    """
    start = time.perf_counter()
    folder = None if out is None else Path(out)
    if folder is not None:
        check_outside(folder, data, option="--out")
        check_free(folder, option="--out")
    source = reading.open(data)
    net, *others = [
        load_encoder(spec, unsafe_pickle=unsafe_pickle)
        for spec in (encoder, *clean_encoder)
    ]
    size = image_size_for(source, asked=image_size, model=backbone_of(net))
    with bars() as report:
        runtime = running.runtime(report)
        images, unreadable = read_whole(source, image_size=size, report=report)
        found = search.diagnose(
            net, data=images, references=others, seed=seed, runtime=runtime
        )
        beside: dict[str, object] = {
            "encoder": encoder,
            "num_images": len(images),
            "unreadable": [{"id": u.id, "reason": u.reason} for u in unreadable],
        }
        if folder is not None:
            save_diagnosis(found, folder, extra=beside)
            prints = {
                "data": fingerprint_of(source, report=report),
                "model": fingerprint(net),
            }
            write_run(
                folder,
                command=shlex.join(["bezoar", "detect", *words]),
                settings={"method": "encoder-inversion", **asdict(search)},
                seed=seed,
                versions=versions(),
                fingerprints=prints,
                timings={"total": round(time.perf_counter() - start, 3)},
                status="done",
            )
    if json:
        say_json(plain_diagnosis(found) | beside)
    else:
        say(_text(found, encoder, len(images), len(unreadable), folder))
    return FOUND if found.found else DONE


def _text(
    found: Diagnosis, spec: str, count: int, lost: int, folder: Path | None
) -> str:
    rows = [
        ("status", found.status),
        ("encoder", shown(spec)),
        ("images", f"{count:,}" + (f" ({lost:,} unreadable)" if lost else "")),
        ("area", f"{percent(found.area)} of the image, the smallest patch found"),
        ("threshold", percent(found.threshold)),
        ("cosine", f"{found.cosine:.4f} between images with it"),
        ("restarts", ", ".join(percent(row["area"]) for row in found.restarts)),
        ("clean encoders", ", ".join(map(percent, found.reference_areas))),
        ("p-value", "" if found.p_value is None else f"{found.p_value:.3f}"),
    ]
    limits = "\n".join(f"- {limit}" for limit in found.limits)
    parts = [found.summary, facts(rows), f"What this does not tell:\n{limits}"]
    if folder is not None:
        parts.append("\n".join(str(folder / name) for name in _FILES))
    return "\n\n".join(parts)
