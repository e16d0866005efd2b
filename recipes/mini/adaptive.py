"""An attacker who knows the method: one for each of the five, beside one who does not.

Each part plants the same poison twice, as it was published and as somebody would who
knows what will look for it, and reports what the method still does:

- ``cd``: a blended pattern at 2 % opacity, whose masks are no smaller than clean ones.
- ``dvae``: each class blurred by a filter of its own, which no additive code holds; and
  smooth patterns, which look like what classes differ in by nature.
- ``ebm``: poison that is aimed through the purifier (its change held fixed in the
  gradient, Athalye et al. 2018, arXiv:1802.00420).
- ``mimic``: a backdoor that keeps the attention maps which MIMIC follows as they were.
- ``ubt``: planted pairs that the reference finds near to their false caption already.

The gates ask that the attacks work and that the method holds the attacker who does not
know it; what the other one achieves is reported as it falls. ``--part`` runs one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from bezoar.attacks import (
    LSP,
    BadEncoder,
    Blended,
    ClassNoise,
    CUDAFilter,
    poison_pairs,
)
from bezoar.attacks.bullseye_polytope import Features, feature_maps
from bezoar.bench.clip_minis import Drill, checkerboard, digits, train_reference
from bezoar.bench.recipe import Claims, cifar10, main, off_grid
from bezoar.bench.tiny_encoders import pretrained, shrunk, typical
from bezoar.bench.transfer import NUM_FEATURES, transfer_drill
from bezoar.bench.ubt_claims import success
from bezoar.data import ImageData, PairData
from bezoar.detect import CognitiveDistillation
from bezoar.metrics import EncoderTask, auroc, evaluate, evaluate_encoders, purity
from bezoar.models import Architecture, DualEncoder, embed_images, frozen
from bezoar.purify import DVAE, PureEBM
from bezoar.repair import MIMIC
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training, train_classifier, train_clip

LONG = True  # two attacks and two defences for each of five methods
TRUCK = 9


def cd(claims: Claims, runtime: Runtime) -> None:
    """Blend a pattern at 20 % and at 2 % into a tenth of the images."""
    train, test = cifar10("train", limit=5000), cifar10("test", limit=2000)
    for name, alpha in (("plain", 0.2), ("adaptive", 0.02)):
        attack = Blended(poison_rate=0.10, alpha=alpha)
        poisoned = attack.poison(train, seed=claims.seed)
        model = trained(poisoned.data, 32, epochs=15, seed=claims.seed, runtime=runtime)
        shown = evaluate(model, test, attack=attack, runtime=runtime)
        rows = torch.arange(3000)
        found = CognitiveDistillation().detect(
            poisoned.data.take(rows), model=model, seed=claims.seed, runtime=runtime
        )
        told = auroc(found.scores, poisoned.is_poison[rows])
        claims.reported(f"cd, {name}: success", shown.attack_success_rate or 0.0)
        if name == "plain":
            claims.at_least("cd, plain: AUROC", told, 0.90)
        else:
            claims.reported("cd, adaptive: AUROC", told)
        claims.reported(f"cd, {name}: verdict", found.verdict.status)


def dvae(claims: Claims, runtime: Runtime) -> None:
    """Make 2,000 images unlearnable by patches, by filters and by smooth patterns."""
    train = off_grid(cifar10("train", limit=2000))
    test = off_grid(cifar10("test", limit=2000))

    def accuracy(data: ImageData) -> float:
        model = trained(data, 16, epochs=20, seed=claims.seed, runtime=runtime)
        return evaluate(model, test, runtime=runtime).clean_accuracy

    clean = accuracy(train)
    claims.reported("dvae: accuracy on clean data", clean)
    attacks: dict[str, LSP | CUDAFilter | ClassNoise] = {
        "plain": LSP(),
        "adaptive": CUDAFilter(),
        "smooth": ClassNoise(shape="smooth", eps=16 / 255),
    }
    for name, attack in attacks.items():
        data = attack.poison(train, seed=claims.seed).data
        done = DVAE.mini().purify(data, seed=claims.seed, runtime=runtime)
        before, after = accuracy(data), accuracy(done.data)
        claims.reported(f"dvae, {name}: accuracy, purified", after)
        if name != "plain":
            claims.reported(f"dvae, {name}: accuracy, poisoned", before)
        else:
            most = round(clean - 0.10, 4)
            claims.at_most("dvae, plain: accuracy, poisoned", before, most)
            claims.at_least("dvae, plain: accuracy gained", after - before, 0.05)


class Through:
    """Features of what a purifier makes of images, with the gradient of the images.

    What the purifier changes is computed anew every few calls and held fixed between
    them; an attacker who does so lacks the gradient through it, and little else.

    Args:
        features: From images in [0, 1] to vectors.
        runtime: Where and how to run.
        every: Calls between two purifications.
    """

    def __init__(self, features: Features, runtime: Runtime, *, every: int) -> None:
        self._features, self._every = features, every
        self._runtime = replace(runtime, progress=Runtime().progress)
        self._calls, self._change = 0, torch.zeros(())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features; without gradients those of the images as they are."""
        if not torch.is_grad_enabled():
            return self._features(images)
        if self._calls % self._every == 0:
            self._change = self._walked(images.detach())
        self._calls += 1
        return self._features(images + self._change)

    def _walked(self, images: Tensor) -> Tensor:
        stored = (images * 255).round().to(torch.uint8)
        data = ImageData(
            images=stored,
            labels=torch.zeros(len(stored), dtype=torch.int64),
            ids=tuple(map(str, range(len(stored)))),
            class_names=("any",),
        )
        done = PureEBM.fine_tune().purify(
            data, energy="cifar10-nf32", seed=1 + self._calls, runtime=self._runtime
        )
        return (done.data.images.float() - stored.float()) / 255


def ebm(claims: Claims, runtime: Runtime) -> None:
    """Move images towards a chosen one, with and without the purifier in mind."""
    model = trained(
        off_grid(cifar10("train", limit=NUM_FEATURES)),
        32,
        epochs=8,
        seed=claims.seed,
        runtime=runtime,
    )
    probe = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    method = PureEBM.fine_tune()

    def purified(data: ImageData) -> Tensor:
        return method.purify(
            data, energy="cifar10-nf32", seed=claims.seed, runtime=runtime
        ).data.images

    with feature_maps([model], probe, runtime=runtime) as (features,):
        aims: dict[str, Features] = {
            "plain": features,
            "adaptive": Through(features, runtime, every=30),
        }
        for name, attacked in aims.items():
            drill = transfer_drill(
                features,
                num_victims=4,
                attacked=attacked,
                seed=claims.seed,
                runtime=runtime,
            )
            for arm, defended in (("undefended", _stored), ("purified", purified)):
                row = drill.judged(defended, features=features, seed=claims.seed)
                title = f"ebm, {name}: success, {arm}"
                if (name, arm) == ("plain", "undefended"):
                    claims.at_least(title, row["success"], 0.75)
                else:
                    claims.reported(title, row["success"])


def mimic(claims: Claims, runtime: Runtime) -> None:
    """Backdoor an encoder, with and without its attention maps in mind."""
    seed = claims.seed
    data = shrunk(cifar10("train", limit=19_000))
    rows = torch.arange(len(data))
    clean = pretrained(data.take(rows[:10_000]), epochs=6, seed=seed, runtime=runtime)
    pool = data.take(rows[15_000:16_000])
    place = typical(pool, clean, target=TRUCK)
    plain = replace(BadEncoder.tiny(), epochs=15, batch_size=64)
    encoders: dict[str, nn.Module] = {"clean": clean}
    for name, weight in (("plain", 0.0), ("adaptive", 10.0)):
        attack = replace(plain, attention_evasion_weight=weight)
        teacher = attack.attack(
            clean,
            data=data.take(rows[10_000:15_000]),
            references=pool.images[place : place + 1],
            seed=seed,
            runtime=runtime,
        )
        repair = MIMIC.tiny().repair(
            teacher, data=data.take(rows[18_000:]), seed=seed, runtime=runtime
        )
        encoders[f"{name} teacher"], encoders[f"{name} student"] = teacher, repair.model
    encoders["teacher"] = encoders["plain teacher"]
    task = EncoderTask(
        name="cifar10",
        train=data.take(rows[16_000:18_000]),
        test=shrunk(cifar10("test", limit=2000)),
        target_class=TRUCK,
    )
    found = evaluate_encoders(encoders, tasks=[task], attack=plain, runtime=runtime)
    rates = {row.encoder: row.attack_success_rate or 0.0 for row in found}
    floor = rates["clean"]
    claims.reported("mimic: floor", floor)
    claims.at_least("mimic, plain: teacher's success", rates["plain teacher"], 0.90)
    above = rates["plain student"] - floor
    claims.at_most("mimic, plain: student above floor", above, 0.08)
    claims.reported("mimic, adaptive: teacher's success", rates["adaptive teacher"])
    above = rates["adaptive student"] - floor
    claims.reported("mimic, adaptive: student above floor", above)


def ubt(claims: Claims, runtime: Runtime) -> None:
    """Plant pairs at random, and where the reference sees the target already."""
    seed, mini = claims.seed, digits(claims.seed)
    reference = train_reference(mini, seed=seed, runtime=runtime)
    others = (mini.victim.labels != mini.target_class).nonzero().flatten()
    near = nearness(reference, mini.victim, mini.prompts[mini.target_class])[others]
    places = {"plain": others, "adaptive": others[near.argsort(descending=True)[:180]]}
    for name, rows in places.items():
        attack = replace(checkerboard(mini, count=1), poison_rate=90 / len(rows))
        done = poison_pairs(
            mini.victim.take(rows),
            attack=attack,
            captions=mini.prompts[mini.target_class],
            seed=seed,
        )
        images, captions = mini.victim.images.clone(), list(mini.victim.captions)
        images[rows] = done.data.images
        for row, caption in zip(rows.tolist(), done.data.captions, strict=True):
            captions[row] = caption
        is_poison = torch.zeros(len(images), dtype=torch.bool)
        is_poison[rows] = done.is_poison
        data = replace(mini.victim, images=images, captions=tuple(captions))
        victim = train_clip(
            reference,
            data=data,
            settings=mini.victim_training,
            seed=seed,
            runtime=runtime,
        )
        drill = Drill(
            mini=mini,
            reference=reference,
            victim=victim,
            data=data,
            is_poison=is_poison,
            attack=attack,
        )
        repair = mini.method.repair(
            victim, data=data, reference=reference, seed=seed, runtime=runtime
        )
        before = success(drill.measure(victim, runtime=runtime))
        assert isinstance(repair.model, DualEncoder)
        after = success(drill.measure(repair.model, runtime=runtime))
        isolated = repair.chosen("isolated", data.ids)
        share = purity(isolated, is_poison) if isolated.any() else 0.0
        if name == "plain":
            claims.at_least("ubt, plain: success before", before, 0.90)
            claims.at_most("ubt, plain: success after", after, 0.05)
        else:
            claims.reported("ubt, adaptive: success before", before)
            claims.reported("ubt, adaptive: success after", after)
        claims.reported(f"ubt, {name}: status", repair.status)
        claims.reported(f"ubt, {name}: poison among the isolated", share)


def nearness(
    reference: DualEncoder, data: PairData, prompts: tuple[str, ...]
) -> Tensor:
    """Return how near each image is to the nearest text of a class."""
    with frozen(reference), torch.no_grad():
        seen = embed_images(reference, data.images)
        told = reference.encode_texts(reference.tokenize(list(prompts)))
    nearest: Tensor = (seen @ told.T).amax(1)
    return nearest


def trained(
    data: ImageData, width: int, *, epochs: int, seed: int, runtime: Runtime
) -> nn.Module:
    """Return a small network trained on ``data``."""
    return train_classifier(
        Architecture(name="convnet", num_classes=10, width=width).build(seed=seed),
        data=data,
        settings=Training(epochs=epochs),
        seed=seed,
        runtime=runtime,
    )


def _stored(data: ImageData) -> Tensor:
    return data.images


PARTS: dict[str, Callable[[Claims, Runtime], None]] = {
    "cd": cd,
    "dvae": dvae,
    "ebm": ebm,
    "mimic": mimic,
    "ubt": ubt,
}


def script(argv: list[str] | None = None) -> int:
    """Run the recipe; return its exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--part", choices=tuple(PARTS))
    options, rest = parser.parse_known_args(argv)

    def chosen(claims: Claims, report: Callable[[Progress], None]) -> None:
        """Attack each method as somebody would who knows it."""
        for name in (options.part,) if options.part else tuple(PARTS):
            PARTS[name](claims, Runtime(progress=report))

    return main("adaptive", chosen, rest)


if __name__ == "__main__":
    sys.exit(script())
