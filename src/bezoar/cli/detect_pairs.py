"""``bezoar detect`` on pairs: images with captions to a ranking by suspicion."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Fixed, OmitArgPrefixes, Suppress, arg

from bezoar.catalog import PAIR_DETECTORS, name_of
from bezoar.cli.detection_page import detection_report
from bezoar.cli.detection_text import (
    Outcome,
    detection_json,
    detection_text,
    remarks_on,
)
from bezoar.cli.failures import DONE, FOUND
from bezoar.cli.mending_pairs import read_pairs
from bezoar.cli.options import (
    READING,
    Column,
    Data,
    Reading,
    Spec,
    method_type,
    parse,
)
from bezoar.cli.pair_options import Pairing
from bezoar.cli.progress import bars
from bezoar.cli.runs import Run, check_outside, digest
from bezoar.cli.sets import fingerprint_of
from bezoar.cli.spreading import SPREADING, Spreading
from bezoar.cli.text import say, say_json
from bezoar.data import PairSource, Unreadable
from bezoar.engine import PairBlockDetector, detect_pair_source
from bezoar.errors import InputError
from bezoar.models import DualEncoder, fingerprint, load_dual_encoder
from bezoar.report import write_page
from bezoar.results import Detection
from bezoar.runtime import Runtime
from bezoar.storage import RunLock, save_detection

if TYPE_CHECKING:
    Method = Any
else:
    Method = method_type(PAIR_DETECTORS)

_DEFAULT = next(iter(PAIR_DETECTORS.values()))()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar detect`` with a detector of pairs.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    return parse(detect_pairs, "detect", words, words=tuple(words))


def detect_pairs(
    data: Data,
    method: Method = _DEFAULT,
    *,
    model: Annotated[str, arg(metavar="SPEC")],
    reference: Spec = None,
    out: Annotated[str, arg(metavar="PATH")] = "bezoar-run",
    text_column: Column = None,
    seed: int = 0,
    batch_size: int = 64,
    block_size: int = 1024,
    json: bool = False,
    unsafe_pickle: bool = False,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Spreading] = SPREADING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Rank pairs of images and captions by suspicion.

    Needs the image-text model that was trained on them, and for pair-similarity best a
    clean one of the same kind. Exit codes: 0 nothing found, 1 poison found, 2 error, 3
    nothing to scan.

    Args:
        data: A table filepath,title, webdataset tars, parquet, or a saved data set.
        method: How to detect.
        model: The image-text model: a folder of ours or of transformers, or
            open_clip:NAME@weights.
        reference: A clean image-text model, for pair-similarity.
        out: Folder for what is found; made if it is missing.
        text_column: Column or field of the captions; looked for if it is not given.
        seed: Seeds everything random.
        batch_size: Images per forward pass.
        block_size: Pairs that are in memory at once, where the method scores one by
            one.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        reading: How to read the set.
        running: On what to run.
        words: The command as it was typed.

    Returns:
        1 if poison was found, else 0.
    """
    folder = Path(out)
    check_outside(folder, data, option="--out")
    pairing = Pairing(reference=reference, text_column=text_column)
    source = pairing.open(data, reading=reading)
    asked = _Asked(
        method=method,
        source=source,
        model=load_dual_encoder(model, unsafe_pickle=unsafe_pickle),
        spec=model,
        reference=pairing.clean_model(unsafe_pickle=unsafe_pickle),
        seed=seed,
        command=shlex.join(["bezoar", "detect", *words]),
    )
    with RunLock(folder), bars() as report:
        runtime = running.runtime(
            report, batch_size=batch_size, block_size=block_size, work_dir=folder
        )
        outcome = _scan(asked, folder, runtime=runtime)
    if json:
        say_json(detection_json(outcome))
    else:
        say(detection_text(outcome))
    return FOUND if outcome.found.found else DONE


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    method: Any
    source: PairSource
    model: DualEncoder
    spec: str
    reference: DualEncoder | None
    seed: int
    command: str

    def check(self) -> None:
        """Refuse a reference that the method does not look at.

        Raises:
            InputError: If there is one.
        """
        takes = inspect.signature(self.method.detect).parameters
        if self.reference is not None and "reference" not in takes:
            raise InputError(
                f"expected no --reference for {name_of(self.method)}, got one; leave "
                "it out"
            )


def _scan(asked: _Asked, folder: Path, *, runtime: Runtime) -> Outcome:
    images = asked.source.images
    side = asked.model.resolution
    asked.check()
    settings = {"method": name_of(asked.method), **asdict(asked.method)}
    data_key = fingerprint_of(images, report=runtime.progress)
    prints = {"data": data_key, "model": fingerprint(asked.model)}
    if asked.reference is not None:
        prints["reference"] = fingerprint(asked.reference)
    captions = digest(captions=list(asked.source.captions()))
    prints["run"] = digest(
        settings=settings, seed=asked.seed, captions=captions, **prints
    )
    run = Run(
        folder=folder,
        command=asked.command,
        settings=settings,
        seed=asked.seed,
        fingerprints=prints,
    )
    run.take_over()
    with run.going_on():
        with run.stage("detect"):
            found, unreadable = _detected(asked, runtime=runtime)
        with run.stage("write"):
            report = detection_report(
                found,
                source=images,
                model=None,
                image_size=(side, side),
                unreadable=unreadable,
                remarks=remarks_on(found),
                decisions={},
                run=run,
                runtime=runtime,
            )
            extra = {"report": report}
            save_detection(found, folder, unreadable=unreadable, extra=extra)
            write_page(folder)
    return Outcome(
        found=found,
        unreadable=unreadable,
        folder=folder,
        model=asked.spec,
        clean=None,
        num_written=0,
        remarks=(),
        seconds=run.timings,
    )


def _detected(
    asked: _Asked, *, runtime: Runtime
) -> tuple[Detection, tuple[Unreadable, ...]]:
    size = (asked.model.resolution, asked.model.resolution)
    if not isinstance(asked.method, PairBlockDetector):  # it looks at all together
        if runtime.engine is not None:
            raise InputError(
                f"expected no engine for {name_of(asked.method)}, which looks at all "
                "pairs at once, got one; leave it out"
            )
        data, unreadable = read_pairs(asked.source, size, report=runtime.progress)
        found: Detection = asked.method.detect(
            data, model=asked.model, seed=asked.seed, runtime=runtime
        )
        return found, unreadable
    return detect_pair_source(
        asked.source,
        method=asked.method,
        model=asked.model,
        reference=asked.reference,
        seed=asked.seed,
        runtime=runtime,
    )
