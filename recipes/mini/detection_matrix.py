"""Six attacks and a clean set against every detector, with default settings.

Seven small networks are trained on 5,000 CIFAR-10 images each and kept in
``build/detection_matrix``; then 2,000 rows of each set are scored by every method, and
loss isolation and EPIC train on these rows. Attacks are as strong as they must be for
their own success to be proved: WaNet at twice the usual warp, which these few images do
not teach at the usual one, clean-label attacks at 8 % of all images.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from bezoar.attacks import (
    SIG,
    BadNets,
    Blended,
    LabelConsistent,
    Trojan,
    WaNet,
)
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.catalog import ALIASES, DETECTORS
from bezoar.data import ImageData
from bezoar.engine import detect_together
from bezoar.metrics import auroc, evaluate, tpr_at_fpr
from bezoar.metrics.combination import combine
from bezoar.models import Architecture, load_model, save_model
from bezoar.results import Panel, Poisoned
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier

Attack = BadNets | Blended | SIG | WaNet | Trojan | LabelConsistent
LONG = True
NUM_IMAGES, NUM_SCORED, NUM_TEST = 5000, 2000, 2000
PROTOCOL = Training(epochs=15, batch_size=64)
ARCHITECTURE = Architecture(name="convnet", num_classes=10, width=32)
CACHE = Path(__file__).resolve().parents[2] / "build" / "detection_matrix"
ATTACKS: dict[str, Attack] = {
    "badnets": BadNets(poison_rate=0.05),
    "blended": Blended(poison_rate=0.10),
    "trojan": Trojan(poison_rate=0.10),
    "wanet": WaNet(poison_rate=0.10, strength=1.0),
    "sig": SIG(poison_rate=0.08),
    "label_consistent": LabelConsistent(poison_rate=0.08),
}
SHORT = {name: alias for alias, name in ALIASES.items()}
METHODS = {SHORT.get(name, name): method() for name, method in DETECTORS.items()}


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Compare all detectors on six attacks and a clean set."""
    runtime = Runtime(progress=report)
    train = cifar10("train", limit=NUM_IMAGES)
    test = cifar10("test", limit=NUM_TEST)
    clean = victim("clean", train, {}, seed=claims.seed, runtime=runtime)
    values: dict[str, list[float]] = {}
    shortfalls: dict[str, float] = {}
    for name, attack in ATTACKS.items():
        if isinstance(attack, LabelConsistent):
            poisoned = attack.poison(train, model=clean, seed=claims.seed)
        else:
            poisoned = attack.poison(train, seed=claims.seed)
        model = victim(
            name, poisoned.data, asdict(attack), seed=claims.seed, runtime=runtime
        )
        shown = evaluate(model, test, attack=attack, runtime=runtime)
        assert shown.attack_success_rate is not None
        claims.at_least(f"{name}: success rate", shown.attack_success_rate, 0.95)
        panel, truth = scored(poisoned, model, seed=claims.seed, runtime=runtime)
        areas = told(claims, name, panel, truth)
        for method, area in areas.items():
            values.setdefault(method, []).append(area)
        shortfalls[name] = max(areas[m] for m in METHODS) - areas["combined"]
    means = {method: fmean(areas) for method, areas in values.items()}
    claims.reported("mean AUROC", line(means))
    claims.at_least("mean AUROC of cd", means["cd"], 0.90)
    others = max(means[m] for m in METHODS if m != "cd")
    claims.at_least("lead of cd over the best baseline", means["cd"] - others, 0.0)
    claims.reported("combined score short of the best single one", line(shortfalls))
    judge_clean(claims, train, clean, runtime=runtime)


def victim(
    name: str,
    data: ImageData,
    settings: Mapping[str, object],
    *,
    seed: int,
    runtime: Runtime,
) -> nn.Module:
    """Return the network trained on a set, from the cache if it is there."""
    facts = repr((settings, asdict(PROTOCOL), asdict(ARCHITECTURE), seed, NUM_IMAGES))
    key = hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()
    path = CACHE / f"{name}-{key}.safetensors"
    if not path.exists():
        trained = train_classifier(
            ARCHITECTURE.build(seed=seed),
            data=data,
            settings=PROTOCOL,
            seed=seed,
            runtime=runtime,
        )
        save_model(trained, path, architecture=ARCHITECTURE)
    return load_model(str(path))


def scored(
    poisoned: Poisoned, model: nn.Module, *, seed: int, runtime: Runtime
) -> tuple[Panel, Tensor]:
    """Return what the detectors make of the first rows, and the truth about these."""
    rows = torch.arange(NUM_SCORED)
    panel, _ = detect_together(
        poisoned.data.take(rows),
        methods=METHODS,
        model=model,
        seed=seed,
        runtime=runtime,
    )
    return panel, poisoned.is_poison[rows]


def told(claims: Claims, name: str, panel: Panel, truth: Tensor) -> dict[str, float]:
    """State what the detectors found of one attack; return their AUROCs."""
    scores = {m: found.scores for m, found in panel.detections.items()}
    equal = combine(scores, dict.fromkeys(scores, 1.0))
    every = {**scores, "combined": panel.combined.scores, "equal": equal}
    areas = {m: auroc(s, truth) for m, s in every.items()}
    claims.reported(f"{name}: AUROC", line(areas))
    for fpr in (0.01, 0.05):
        rates = {m: tpr_at_fpr(s, truth, fpr=fpr) for m, s in every.items()}
        claims.reported(f"{name}: TPR at FPR {fpr:.0%}", line(rates))
    verdicts = {
        m: f"{found.verdict.status}, {share(found.flagged, truth)}"
        for m, found in panel.detections.items()
    }
    claims.reported(
        f"{name}: verdict, flagged, poison among them",
        "; ".join(f"{m} {v}" for m, v in verdicts.items()),
    )
    seconds = {m: d.provenance.seconds for m, d in panel.detections.items()}
    claims.reported(f"{name}: seconds", line(seconds, digits=0))
    return areas


def judge_clean(
    claims: Claims, train: ImageData, clean: nn.Module, *, runtime: Runtime
) -> None:
    """State what the detectors flag where there is nothing to find."""
    rows = torch.arange(NUM_SCORED)
    panel, _ = detect_together(
        train.take(rows),
        methods=METHODS,
        model=clean,
        seed=claims.seed,
        runtime=runtime,
    )
    claims.reported(
        "clean: share flagged",
        line({m: d.flagged.float().mean() for m, d in panel.detections.items()}),
    )
    claims.reported(
        "clean: verdict",
        "; ".join(f"{m} {d.verdict.status}" for m, d in panel.detections.items()),
    )
    verdict = panel.combined.verdict
    claims.at_most("clean: flagged by the default verdict", verdict.num_flagged, 0)


def line(values: Mapping[str, float | Tensor], *, digits: int = 3) -> str:
    """Return numbers by name as one text."""
    return ", ".join(f"{name} {float(v):.{digits}f}" for name, v in values.items())


def share(flagged: Tensor, truth: Tensor) -> str:
    """Return how many images are flagged, and what share of them is poison."""
    count = int(flagged.sum())
    return f"{count}, {truth[flagged].float().mean().item():.0%}" if count else "0"


if __name__ == "__main__":
    sys.exit(main("detection_matrix", body))
