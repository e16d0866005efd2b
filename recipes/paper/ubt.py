"""UBT on CIFAR-10 at full size with a residual CLIP: some attacks, on one GPU.

Half of the 50,000 images train the reference, the other half the victims: captions of
class and brightness, 5 % of them wrong, and 0.3 % or 1 % of the pairs planted. Each
victim is repaired by UBT, by plain unlearning (the idea of ABL), by fine-tuning and by
CleanCLIP on 5,000 clean pairs. ``--set fixed`` runs BadNets, Blended and SIG, with
gates; ``--set other`` runs WaNet, the redrawn noise, TrojVQA, label-consistent poison
and BadCLIP, which are reported as they fall. Reads CIFAR-10 from ``--npz FILE`` (arrays
train_images, train_labels, test_images, test_labels; images uint8), or as the small
recipes do.

The gates are estimates; no run of this script has been recorded yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from bezoar.attacks import SIG, BadClip, Blended, FreshNoise, TrojVQA, WaNet
from bezoar.bench.clip_minis import Drill, Mini, checkerboard, train_victim
from bezoar.bench.machine import commit, machine
from bezoar.bench.recipe import Claims, cifar10
from bezoar.bench.ubt_claims import success
from bezoar.data import ImageData, describe_photos, mix_up_captions, photo_prompts
from bezoar.metrics import purity
from bezoar.models import ClipResNet, DualEncoder, WordTokenizer
from bezoar.repair import UBT, CleanCLIP, PairFineTuning
from bezoar.results import PairTrigger, Repair
from bezoar.runtime import Progress, Runtime
from bezoar.train import ClipTraining, train_clip

NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
GATED = ("badnets", "blended", "sig")
METHOD = replace(UBT.cifar(), suspicious_rate=0.1, lr=1e-4, overfit_lr=1e-4)


def main() -> int:
    """Run one set of attacks and print one JSON object; return 1 if a claim fails."""
    options = _options()
    claims, start = Claims(seed=options.seed), time.perf_counter()
    runtime = Runtime(device=options.device, batch_size=1000, progress=_report)
    mini = _mini(options)
    begin = time.perf_counter()
    reference = _reference(mini, options, runtime)
    claims.facts["reference_seconds"] = round(time.perf_counter() - begin, 1)
    for name, (attack, keeps) in _attacks(mini, reference, options).items():
        drill = train_victim(
            mini,
            reference,
            attack,
            keeps_captions=keeps,
            name=name,
            seed=options.seed,
            runtime=runtime,
        )
        _judge(claims, drill, name, options, runtime)
    clean = train_victim(mini, reference, None, seed=options.seed, runtime=runtime)
    null = METHOD.repair(
        clean.victim, data=clean.data, reference=reference, runtime=runtime
    )
    claims.equal("clean_status", null.status, "nothing found")
    claims.facts["machine"], claims.facts["commit"] = asdict(machine()), commit()
    result = {
        "recipe": f"paper/ubt-{options.set}",
        "seconds": round(time.perf_counter() - start, 1),
        "claims": [asdict(claim) for claim in claims.rows],
        "seed": options.seed,
        "facts": claims.facts,
    }
    print(json.dumps(result))
    return 0 if all(claim.passed for claim in claims.rows) else 1


def _judge(
    claims: Claims,
    drill: Drill,
    name: str,
    options: argparse.Namespace,
    runtime: Runtime,
) -> None:
    before = drill.measure(drill.victim, runtime=runtime)
    floor = success(drill.measure(drill.reference, runtime=runtime))
    plain = replace(
        METHOD,
        rank="similarity",
        word_filter=False,
        local_words=False,
        forget_loss="ascent",
    )
    epochs = max(1, options.victim_epochs // 2)
    rounds: dict[str, Callable[[], Repair]] = {
        "ubt": lambda: _unlearn(METHOD, drill, options, runtime),
        "plain_unlearning": lambda: _unlearn(plain, drill, options, runtime),
        "fine_tuning": lambda: PairFineTuning(
            epochs=epochs, lr=1e-4, batch_size=256
        ).repair(drill.victim, data=drill.mini.clean, runtime=runtime),
        "clean_clip": lambda: CleanCLIP(epochs=epochs, lr=1e-3, batch_size=256).repair(
            drill.victim, data=drill.mini.clean, runtime=runtime
        ),
    }
    table: dict[str, object] = {"floor": floor, "victim": asdict(before)}
    seconds, left, done = {}, {}, {}
    for method, run in rounds.items():
        done[method] = run()
        after = drill.measure(done[method].model, runtime=runtime)
        seconds[method] = done[method].provenance.seconds
        left[method] = success(after)
        table[method] = {**asdict(after), "seconds": seconds[method]}
    own = drill.measure(done["ubt"].model, runtime=runtime)
    isolated = done["ubt"].chosen("isolated", drill.data.ids)
    table["found"] = {
        "status": done["ubt"].status,
        "precision": purity(isolated, drill.is_poison) if isolated.any() else None,
        "stages": dict(done["ubt"].seconds),
        "stop": done["ubt"].stop_reason,
    }
    claims.facts[name] = table
    if name not in GATED:
        claims.reported(f"{name}_success", left["ubt"])
        return
    claims.at_least(f"{name}_victim_accuracy", before.clean_accuracy, 0.80)
    claims.at_least(f"{name}_victim_success", success(before), 0.95)
    claims.at_most(f"{name}_success", left["ubt"], round(floor + 0.05, 4))
    lost = before.clean_accuracy - own.clean_accuracy
    claims.at_most(f"{name}_accuracy_loss", lost, 0.02)
    assert before.target_class_accuracy is not None
    assert own.target_class_accuracy is not None
    lost = before.target_class_accuracy - own.target_class_accuracy
    claims.at_most(f"{name}_target_accuracy_loss", lost, 0.10)
    ratio = seconds["clean_clip"] / seconds["ubt"]
    claims.at_least(f"{name}_times_cheaper_than_clean_clip", ratio, 5.0)
    claims.at_most(
        f"{name}_success_beside_clean_clip",
        left["ubt"],
        round(left["clean_clip"], 4),
    )


def _unlearn(
    method: UBT, drill: Drill, options: argparse.Namespace, runtime: Runtime
) -> Repair:
    return method.repair(
        drill.victim,
        data=drill.data,
        reference=drill.reference,
        seed=options.seed,
        runtime=runtime,
    )


def _attacks(
    mini: Mini, reference: DualEncoder, options: argparse.Namespace
) -> dict[str, tuple[PairTrigger, bool]]:
    count = max(1, round(options.poison_rate * len(mini.victim)))
    rate, target = count / len(mini.victim), mini.target_class
    patch = checkerboard(mini, count=count)
    if options.set == "fixed":
        return {
            "badnets": (patch, False),
            "blended": (Blended(poison_rate=rate, target_class=target), False),
            "sig": (SIG(poison_rate=rate, target_class=target), False),
        }
    texts = mini.prompts[target]
    word = TrojVQA(poison_rate=rate, target_class=target, epochs=2)
    near = BadClip(poison_rate=rate, target_class=target, size=5, epochs=3, lr=0.01)
    own = mini.reference.take(torch.arange(min(10_000, len(mini.reference))))
    learnt = [
        attack.learn(own, model=reference, captions=texts, seed=options.seed)
        for attack in (word, near)
    ]
    return {
        "wanet": (WaNet(poison_rate=rate, target_class=target), False),
        "fresh_noise": (FreshNoise(poison_rate=rate, target_class=target), False),
        "label_consistent": (patch, True),
        "trojvqa": (learnt[0], False),
        "badclip": (learnt[1], False),
    }


def _mini(options: argparse.Namespace) -> Mini:
    train, test = _data(options)
    half = len(train) // 2
    known, own = (
        train.take(torch.arange(half)),
        train.take(torch.arange(half, 2 * half)),
    )
    middle = known.images.flatten(1).float().mean(1).median().item()
    reference = describe_photos(known, middle=middle, seed=options.seed)
    victim = describe_photos(own, middle=middle, seed=options.seed)
    return Mini(
        name="cifar10",
        reference=reference,
        victim=mix_up_captions(victim, rate=0.05, seed=options.seed),
        clean=reference.take(torch.arange(min(5000, half))),
        test=describe_photos(test, middle=middle, seed=options.seed),
        prompts=photo_prompts(test.class_names),
        target_class=NAMES.index("truck"),
        reference_training=ClipTraining(
            epochs=options.epochs,
            lr=2e-3,
            batch_size=options.batch_size,
            augment="crop_flip",
        ),
        victim_training=ClipTraining(
            epochs=options.victim_epochs, lr=1e-3, batch_size=options.batch_size
        ),
        method=METHOD,
    )


def _reference(
    mini: Mini, options: argparse.Namespace, runtime: Runtime
) -> DualEncoder:
    texts = [text for own in mini.prompts for text in own] + ["remember"]
    model = ClipResNet(
        WordTokenizer.from_captions(texts),
        resolution=32,
        layers=(options.blocks,) * 4,
        width=options.width,
        embedding=256,
        text_width=256,
        text_layers=4,
        text_heads=4,
        stem="small",
        seed=options.seed,
    )
    return train_clip(
        model,
        data=mini.reference,
        settings=mini.reference_training,
        seed=options.seed,
        runtime=runtime,
    )


def _data(options: argparse.Namespace) -> tuple[ImageData, ImageData]:
    num_test = min(10_000, options.limit)
    if options.npz is None:
        return cifar10("train", limit=options.limit), cifar10("test", limit=num_test)
    arrays = np.load(options.npz)  # pickles in it are refused
    return _images(arrays, "train", options.limit), _images(arrays, "test", num_test)


def _images(arrays: np.lib.npyio.NpzFile, split: str, limit: int) -> ImageData:
    images = torch.from_numpy(arrays[f"{split}_images"][:limit])
    if images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    return ImageData(
        images=images.contiguous(),
        labels=torch.from_numpy(arrays[f"{split}_labels"][:limit]).long(),
        ids=tuple(f"{split}/{i}" for i in range(len(images))),
        class_names=tuple(NAMES),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=("fixed", "other"), default="fixed")
    parser.add_argument("--npz", type=Path, help="CIFAR-10 in one file")
    parser.add_argument("--poison-rate", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=30, help="of the reference")
    parser.add_argument("--victim-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--blocks", type=int, default=2, help="in each of four layers")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--limit", type=int, default=50_000, help="training images")
    parser.add_argument("--seed", type=int, default=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    return parser.parse_args()


def _report(progress: Progress) -> None:
    if progress.metrics:
        figures = " ".join(f"{k}={v:.4g}" for k, v in progress.metrics.items())
        print(
            f"{progress.stage} {progress.done}/{progress.total} {figures}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
