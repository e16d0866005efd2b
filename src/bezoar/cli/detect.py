"""``bezoar detect``: images to a ranking, a verdict and a set without the poison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Fixed, OmitArgPrefixes, Suppress, arg

from bezoar.catalog import ALIASES, DETECTORS, PAIR_DETECTORS, presets
from bezoar.cli.audit import audit as run_audit
from bezoar.cli.audit import audit_json, audit_text, read_columns
from bezoar.cli.detection_text import Outcome, detection_json, detection_text
from bezoar.cli.failures import DONE, FOUND
from bezoar.cli.options import (
    NETWORK,
    READING,
    Count,
    Data,
    Network,
    Place,
    Reading,
    Spec,
    check_preset,
    method_type,
    parse,
    preset_of,
    value_of,
)
from bezoar.cli.progress import bars
from bezoar.cli.runs import check_free, check_outside, was_cut_short
from bezoar.cli.scan import scan
from bezoar.cli.sets import image_size_for
from bezoar.cli.spreading import SPREADING, Spreading
from bezoar.cli.text import say, say_json
from bezoar.cli.victim import (
    check_labels_to_train,
    given_victim,
    victim_to_train,
)
from bezoar.engine import Detector
from bezoar.errors import InputError, UnscoreableError
from bezoar.models import load_model
from bezoar.report import read_decisions
from bezoar.storage import RunLock, load_detection
from bezoar.train import Training

Names = Annotated[str | None, arg(metavar="NAMES", help_behavior_hint="")]

if TYPE_CHECKING:
    Method = Detector
    Preset = str
else:
    Method = method_type(DETECTORS)
    _PRESETS = {name: None for cls in DETECTORS.values() for name in presets(cls)}
    Preset = Literal[("default", *_PRESETS)]

_DEFAULT = next(iter(DETECTORS.values()))()


def command(words: Sequence[str]) -> int:
    """Run ``bezoar detect``.

    Args:
        words: What stands after the verb.

    Returns:
        The exit code.
    """
    if any(name in words[1:] for name in PAIR_DETECTORS):
        from bezoar.cli.detect_pairs import command as command_on_pairs

        return command_on_pairs(words)
    if value_of("--encoder", words) is not None:
        from bezoar.cli.detect_encoder import command as command_on_encoder

        return command_on_encoder(words)
    if len(words) > 1 and words[1] in ALIASES:
        words = [words[0], ALIASES[words[1]], *words[2:]]
    method = preset_of(DETECTORS, words)
    return parse(detect, "detect", words, method=method, words=tuple(words))


def detect(
    data: Data,
    method: Method = _DEFAULT,
    *,
    model: Spec = None,
    reference: Place = None,
    out: Annotated[str, arg(metavar="PATH")] = "bezoar-run",
    clean: Place = None,
    methods: Names = None,
    audit: Place = None,
    decisions: Place = None,
    preset: Preset = "default",
    epochs: Count = None,
    image_size: Count = None,
    seed: int = 0,
    batch_size: int = 64,
    block_size: int = 1024,
    json: bool = False,
    unsafe_pickle: bool = False,
    network: OmitArgPrefixes[Network] = NETWORK,
    reading: OmitArgPrefixes[Reading] = READING,
    running: OmitArgPrefixes[Spreading] = SPREADING,
    words: Suppress[Fixed[tuple[str, ...]]] = (),
) -> int:
    """Rank the images of a set by suspicion, and say whether there is poison in it.

    Needs no list of poisoned images, no trigger and no poison rate. Without --model a
    network is trained on the set first, and kept. A run that was killed goes on where
    it stopped when the same command is given again. Pairs of images and captions have
    detectors of their own: "bezoar detect PAIRS pair-similarity --help"; so has an
    image encoder: "bezoar detect IMAGES --encoder SPEC --help". Exit codes: 0 nothing
    found, 1 poison found, 2 error, 3 nothing to scan.

    Args:
        data: A folder of class folders or of images, parquet files, webdataset tars, a
            saved Hugging Face data set, or the id of one on the Hub.
        method: How to detect.
        model: A model that was trained on these images: a path that "bezoar train"
            wrote, resnet18@weights.safetensors, a folder or id for transformers,
            timm:NAME@WEIGHTS, open_clip:NAME@WEIGHTS or file.py:factory.
        reference: Folder of an earlier run on images known to be clean, with the same
            settings and model; scores are then compared with theirs.
        out: Folder for what is found; made if it is missing.
        clean: Where to write the set without the flagged images, in the format that
            came in; nothing is written when nothing is flagged.
        methods: Several methods with their defaults, by commas: cd (Cognitive
            Distillation), ac, ss, strip, li, no, or their full names; the verdict is
            that of the first, the score combines all.
        audit: Metadata of the images, a CSV or parquet file with a column "id" and
            others of texts, numbers or yes and no: which of them go with images that
            the model needs little of, class by class.
        decisions: The file that the page of this run saved: what it keeps and drops is
            put before what the detector flags, in all files and in --clean.
        preset: Named settings of the method; options given beside it have precedence.
        epochs: Passes over the set when a model is trained; as in "bezoar train" if it
            is not given.
        image_size: Height and width that images are resized to; else what the model
            was made for, or the most common size up to 224.
        seed: Seeds everything random.
        batch_size: Images per forward pass.
        block_size: Images per block; what a killed run has to do again.
        json: Print one JSON object instead of text.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        network: The network to train when no model is given.
        reading: How to read the set.
        running: On what to run, and who does the work.
        words: The command as it was typed.

    Returns:
        1 if poison was found, else 0.

    Raises:
        UnscoreableError: If the scores mean nothing with this model and settings.
    """
    if methods is not None:
        _check_several(methods, method=method, reference=reference)
    _check_options(method, preset=preset, model=model, network=network, epochs=epochs)
    folder, place = Path(out), None if clean is None else Path(clean)
    _check_places(data, folder, place)
    source = reading.open(data)
    classes = len(source.class_names) or None
    loaded = known = None
    if model is not None:
        loaded = load_model(model, num_classes=classes, unsafe_pickle=unsafe_pickle)
    if reference is not None:
        known = load_detection(Path(reference))
    size = image_size_for(source, asked=image_size, model=loaded)
    if model is not None and loaded is not None:
        victim = given_victim(model, loaded, source, seed=seed)
    else:
        check_labels_to_train(source)
        victim = victim_to_train(
            network.architecture(source.class_names, size),
            training=Training() if epochs is None else Training(epochs=epochs),
            folder=folder,
            seed=seed,
        )
    columns = None if audit is None else read_columns(Path(audit))
    decided = None if decisions is None else read_decisions(Path(decisions))
    with RunLock(folder), bars() as report:
        outcome = scan(
            source,
            method if methods is None else several(methods),
            victim=victim,
            image_size=size,
            reference=known,
            clean=place,
            seed=seed,
            runtime=running.runtime(
                report, batch_size=batch_size, block_size=block_size, work_dir=folder
            ),
            command=shlex.join(["bezoar", "detect", *words]),
            decisions=decided,
        )
    _say(outcome, columns, as_json=json)
    verdict = outcome.found.verdict
    if verdict.status == "not scoreable":
        advice = "; ".join(verdict.health) or "raise --steps or lower --l1-weight"
        raise UnscoreableError(f"expected scores with a meaning, got none; {advice}")
    return FOUND if outcome.found.found else DONE


def _say(
    outcome: Outcome,
    columns: Mapping[str, Mapping[str, object]] | None,
    *,
    as_json: bool,
) -> None:
    told = [detection_text(outcome)] if not as_json else []
    plain = detection_json(outcome) if as_json else {}
    if columns is not None:
        audited, known = run_audit(outcome.found, columns, folder=outcome.folder)
        plain["audit"] = audit_json(audited, known)
        told.append(audit_text(audited, outcome.found, known))
    if as_json:
        say_json(plain)
    else:
        say("\n\n".join(told))


def _check_options(
    method: Detector,
    *,
    preset: str,
    model: str | None,
    network: Network,
    epochs: int | None,
) -> None:
    check_preset(method, preset)
    if model is not None and (network != NETWORK or epochs is not None):
        raise InputError(
            "expected no --arch, --width or --epochs beside --model, got some; leave "
            "them out, or leave out --model to train one"
        )


def _check_several(methods: str, *, method: Detector, reference: str | None) -> None:
    several(methods)
    if method != _DEFAULT or reference is not None:
        raise InputError(
            "expected --methods without METHOD, its settings or --reference, got both; "
            "leave one out"
        )


def several(names: str) -> dict[str, Detector]:
    """Return the detectors that "--methods" names, with their defaults.

    Args:
        names: Names or aliases, separated by commas.

    Returns:
        The detectors by the names given, in that order.

    Raises:
        InputError: If a name is unknown, or comes twice.
    """
    given = [name.strip() for name in names.split(",")]
    full = [ALIASES.get(name, name) for name in given]
    unknown = [name for name in full if name not in DETECTORS]
    if unknown or len(set(full)) < len(full):
        known = ", ".join([*ALIASES, "strip", *DETECTORS])
        raise InputError(
            f"expected --methods such as cd,ac,ss ({known}), each once, got {names!r}; "
            "correct the names"
        )
    return {name: DETECTORS[of]() for name, of in zip(given, full, strict=True)}


def _check_places(data: str, folder: Path, clean: Path | None) -> None:
    check_outside(folder, data, option="--out")
    if clean is not None:
        check_outside(clean, data, option="--clean")
        if not was_cut_short(folder):
            check_free(clean, option="--clean")
