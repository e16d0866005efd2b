"""The second page of the demo: made-up pairs of images and captions, and a repair."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn

from bezoar.attacks import BadNets
from bezoar.cli.runs import versions
from bezoar.cli.text import percent
from bezoar.data import PairData, digit_pairs, digit_prompts
from bezoar.data.captions import DIGIT_NAMES
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder, TinyClip, WordTokenizer, embed_images, frozen
from bezoar.repair import UBT
from bezoar.report import (
    Report,
    choose,
    detection_sections,
    evaluation_card,
    make_report,
    run_facts,
    step,
    steps,
    verdict_of,
    write_page,
)
from bezoar.results import Detection, Evaluation, Repair
from bezoar.runtime import Runtime
from bezoar.storage import write_json
from bezoar.train import ClipTraining, train_clip

NUM_REFERENCE = 6000
NUM_PAIRS = 3000
NUM_TEST = 500
REFERENCE_TRAINING = ClipTraining(epochs=4, lr=2e-3)
TRAINING = ClipTraining(epochs=5, lr=1e-3)
ATTACK = BadNets(poison_rate=0.03, target_class=7)
METHOD = UBT.mini()
_TOLD = {
    "reference": "a small image-text model learnt from clean pairs of other digits",
    "train": "it went on learning from other pairs, of which some are planted: a small "
    "square on the image, and the name of another digit in the caption",
    "repair": "the planted pairs were looked for by what the reference finds odd, and "
    "the model was made to forget the word that they share",
}
_NOT_TESTED = (
    "captions and images of real size: these are 24 pixels wide, and of one sentence",
    "triggers in the text",
    "models without a clean reference of the same kind",
)


def demo_pairs(folder: Path, *, seed: int, runtime: Runtime) -> Report:
    """Plant pairs, train on them, find them, make the model forget, and write a page.

    Args:
        folder: Where ``report.json`` and ``report.html`` go.
        seed: Seeds everything random.
        runtime: Where and how to run.

    Returns:
        The report.
    """
    seconds: dict[str, float] = {}
    words = WordTokenizer.from_captions(list(itertools.chain(*digit_prompts())))
    pairs, planted = _planted(seed, runtime)
    clean = digit_pairs("reference", num_pairs=NUM_REFERENCE, seed=seed)
    start = time.perf_counter()
    reference = train_clip(
        TinyClip(words, resolution=24, seed=seed),
        data=clean,
        settings=REFERENCE_TRAINING,
        seed=seed,
        runtime=runtime,
    )
    seconds["reference"] = time.perf_counter() - start
    model = train_clip(
        reference, data=pairs, settings=TRAINING, seed=seed, runtime=runtime
    )
    seconds["train"] = time.perf_counter() - start - seconds["reference"]
    repair = METHOD.repair(
        model, data=pairs, reference=reference, seed=seed, runtime=runtime
    )
    seconds["repair"] = repair.provenance.seconds
    report = _report(
        pairs,
        planted,
        repair,
        before=_measured(model, seed),
        after=_measured(repair.model, seed),
        model=model,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        seed=seed,
    )
    write_json(folder / "report.json", {"format": 1, "report": report})
    write_page(folder)
    return report


def pairs_text(report: Report, folder: Path) -> str:
    """Return the summary of the second part.

    Args:
        report: What ``demo_pairs`` returned.
        folder: Where the page lies.

    Returns:
        Some lines.
    """
    (card,) = (part for part in report["sections"] if part["type"] == "card")
    rows = {row["name"]: row for row in card["rows"]}
    hits, wrong = rows["clean accuracy"], rows["attack success rate"]
    return f"""\
5. Pairs      An image-text model learnt from {NUM_PAIRS:,} digits with captions, some
              of them planted. {report["verdict"]["summary"]}
              It was made to forget them: images with the square that it takes for
              the planted digit fell from {percent(wrong["before"])} to \
{percent(wrong["after"])}, digits it
              names right went from {percent(hits["before"])} to \
{percent(hits["after"])}.
              The page: {folder / "report.html"}"""


def _planted(seed: int, runtime: Runtime) -> tuple[PairData, Tensor]:
    pairs = digit_pairs("victim", num_pairs=NUM_PAIRS, seed=seed)
    drill = ATTACK.poison(pairs.image_data, seed=seed, runtime=runtime)
    captions = list(pairs.captions)
    target = DIGIT_NAMES[ATTACK.target_class]
    for i in drill.poison_indices:
        own = DIGIT_NAMES[int(pairs.labels[i])]
        captions[i] = captions[i].replace(own, target)
    data = replace(pairs, images=drill.data.images, captions=tuple(captions))
    return data, drill.is_poison


def _measured(model: nn.Module, seed: int) -> Evaluation:
    assert isinstance(model, DualEncoder)
    classifier = zero_shot_classifier(model, digit_prompts(), class_names=DIGIT_NAMES)
    test = digit_pairs("test", num_pairs=NUM_TEST, seed=seed)
    return evaluate(classifier, test.image_data, attack=ATTACK)


def _report(
    pairs: PairData,
    planted: Tensor,
    repair: Repair,
    *,
    before: Evaluation,
    after: Evaluation,
    model: DualEncoder,
    seconds: Mapping[str, float],
    seed: int,
) -> Report:
    found = repair.detection
    assert found is not None  # UBT says what it found
    hits = int((found.flagged & planted).sum())
    shown = pairs.take(_pictured(found, pairs))
    with frozen(model):
        vectors = embed_images(model, shown.images)
    parts = detection_sections(
        found,
        images=shown.image_data,
        vectors=vectors,
        captions=dict(zip(pairs.ids, pairs.captions, strict=True)),
        remarks=(
            f"a drill: the truth is known, and {hits} of the {int(planted.sum())} "
            "planted pairs are flagged; the repair needs no more than these",
            repair.summary,
        ),
    )
    done = [step(n, "done", text, seconds=seconds[n]) for n, text in _TOLD.items()]
    return make_report(
        title="demo: digits with captions",
        verdict=verdict_of(found),
        sections=[
            *parts,
            evaluation_card(before, after, title="The model before and after"),
            steps(done, title="What the demo did"),
        ],
        not_tested=_NOT_TESTED,
        run=run_facts(
            command=f"bezoar demo --part pairs --seed {seed}",
            settings={
                "attack": asdict(ATTACK),
                "reference_training": asdict(REFERENCE_TRAINING),
                "training": asdict(TRAINING),
                "repair": asdict(METHOD),
            },
            seeds={"seed": seed},
            versions=versions(),
            seconds=seconds,
        ),
    )


def _pictured(found: Detection, pairs: PairData) -> Tensor:
    place = {id_: i for i, id_ in enumerate(pairs.ids)}
    rows = [place[found.ids[i]] for i in choose(found).pictured]
    return found.labels.new_tensor(rows)
