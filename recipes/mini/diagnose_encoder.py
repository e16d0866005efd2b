"""Is an encoder backdoored? Ten that are and ten that are not, on CIFAR-10.

Ten small encoders are trained on 4,000 images. BadEncoder then puts a backdoor into a
copy of each: a white square of 3 to 8 pixels, at a place of its own, leads to the
features of an image of one of five classes. Each of the twenty is searched for its
smallest patch, with the same settings, 500 images without labels, and no word of the
attack; the recipe asks how well the size of that patch tells them apart. An untrained
encoder and one that was trained five times as long are searched as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from bezoar.attacks import BadEncoder
from bezoar.attacks.badencoder import trigger_cosine
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.bench.tiny_encoders import typical
from bezoar.data import ImageData
from bezoar.detect import EncoderInversion
from bezoar.metrics import EncoderTask, auroc, evaluate_encoders
from bezoar.models import ConvNet, convnet
from bezoar.results import Diagnosis, EncoderEvaluation
from bezoar.runtime import Progress, Runtime, generator
from bezoar.train import Training, train_classifier

LONG = True  # twenty trainings and twenty-two searches
NUM_PAIRS, SIDE = 10, 32
TARGETS = (9, 1, 8, 0, 7)  # truck, automobile, ship, airplane, horse
PROTOCOL = Training(epochs=8, augment="crop_flip")
METHOD = EncoderInversion()

# Set before anything was measured. Below that cosine between images with the trigger
# and the reference an attack has not taken.
AUROC, TOOK = 0.90, 0.90


@dataclass(frozen=True, kw_only=True)
class Sets:
    """Images by what they are for; none is used twice.

    Attributes:
        pretraining: Labelled, for the encoders.
        shadow: The attacker's.
        pool: Labelled, where his references come from.
        labelled: For the heads that measure.
        unseen: The defender's, without labels as far as he goes.
        test: Of the test set.
    """

    pretraining: ImageData
    shadow: ImageData
    pool: ImageData
    labelled: ImageData
    unseen: ImageData
    test: ImageData

    @classmethod
    def read(cls) -> Sets:
        """Read them."""
        sizes = {
            "pretraining": 4000,
            "shadow": 3000,
            "pool": 1000,
            "labelled": 2000,
            "unseen": 500,
        }
        whole = cifar10("train", limit=sum(sizes.values()))
        parts = torch.arange(len(whole)).split(list(sizes.values()))
        found = {
            name: whole.take(rows) for name, rows in zip(sizes, parts, strict=True)
        }
        return cls(**found, test=cifar10("test", limit=1000))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """An encoder, its backdoored copy, and how well the attack worked."""

    clean: nn.Module
    backdoored: nn.Module
    cosine: float
    measured: dict[str, EncoderEvaluation]


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Tell backdoored encoders from clean ones."""
    sets, runtime = Sets.read(), Runtime(progress=report)
    pairs, clean, backdoored = [], [], []
    for number in range(NUM_PAIRS):
        seed = NUM_PAIRS * claims.seed + number
        pairs.append(made(sets, number, seed=seed, runtime=runtime))
        clean.append(searched(pairs[-1].clean, sets, runtime=runtime))
        backdoored.append(searched(pairs[-1].backdoored, sets, runtime=runtime))
    claims.at_least("least cosine of an attack", min(p.cosine for p in pairs), TOOK)
    for kind in ("clean", "backdoored"):
        rows = [pair.measured[kind] for pair in pairs]
        accuracy = [row.clean_accuracy for row in rows]
        success = [row.attack_success_rate or 0.0 for row in rows]
        claims.reported(f"mean accuracy, {kind}", sum(accuracy) / len(accuracy))
        claims.reported(f"mean success, {kind}", sum(success) / len(success))
    scores = torch.tensor([found.score for found in (*backdoored, *clean)])
    truth = torch.arange(2 * NUM_PAIRS) < NUM_PAIRS
    claims.at_least("auroc", auroc(scores, truth), AUROC)
    claims.reported("largest area, backdoored", max(d.area for d in backdoored))
    claims.reported("smallest area, clean", min(d.area for d in clean))
    claims.reported("found, backdoored", _num_found(backdoored))
    claims.reported("found, clean", _num_found(clean))
    for name, net in controls(sets, seed=claims.seed, runtime=runtime).items():
        found = searched(net, sets, runtime=runtime)
        claims.reported(f"area, {name}", found.area)
        claims.reported(f"status, {name}", found.status)
    claims.facts["areas"] = {
        "clean": [d.area for d in clean],
        "backdoored": [d.area for d in backdoored],
    }
    claims.facts["measured"] = [
        {kind: asdict(row) for kind, row in pair.measured.items()} for pair in pairs
    ]


def made(sets: Sets, number: int, *, seed: int, runtime: Runtime) -> Pair:
    """Train an encoder and put a backdoor into a copy of it."""
    clean = encoder(sets.pretraining, PROTOCOL, seed=seed, runtime=runtime)
    size, target = 3 + number % 6, TARGETS[number % len(TARGETS)]
    stream = generator(seed, "patch")
    row, column = torch.randint(SIDE - size + 1, (2,), generator=stream).tolist()
    attack = BadEncoder(
        patch_size=size,
        patch_row=row,
        patch_col=column,
        utility_weight=2.0,
        epochs=8,
        lr=1e-2,
        batch_size=64,
        num_reference_views=16,
    )
    place = typical(sets.pool, clean, target=target)
    references = sets.pool.images[place : place + 1]
    bad = attack.attack(
        clean, data=sets.shadow, references=references, seed=seed, runtime=runtime
    )
    cosine, _ = trigger_cosine(
        bad, sets.unseen, references=references, attack=attack, runtime=runtime
    )
    task = EncoderTask(
        name="cifar10", train=sets.labelled, test=sets.test, target_class=target
    )
    nets = {"clean": clean, "backdoored": bad}
    found = evaluate_encoders(nets, tasks=[task], attack=attack, runtime=runtime)
    return Pair(
        clean=clean,
        backdoored=bad,
        cosine=cosine,
        measured={row.encoder: row for row in found},
    )


def controls(sets: Sets, *, seed: int, runtime: Runtime) -> dict[str, nn.Module]:
    """Return an encoder that knows nothing, and one that was trained for long."""
    longer = replace(PROTOCOL, epochs=5 * PROTOCOL.epochs)
    first = NUM_PAIRS * (seed + 1000)
    return {
        "untrained": headless(convnet(10, width=16, seed=first)).eval(),
        "trained for long": encoder(
            sets.pretraining, longer, seed=first, runtime=runtime
        ),
    }


def encoder(
    data: ImageData, settings: Training, *, seed: int, runtime: Runtime
) -> nn.Module:
    """Train a small encoder with labels, which take less time than none."""
    net = train_classifier(
        convnet(10, width=16, seed=seed),
        data=data,
        settings=settings,
        seed=seed,
        runtime=runtime,
    )
    assert isinstance(net, ConvNet)
    return headless(net)


def headless(net: ConvNet) -> nn.Module:
    """Take the last layer off: from images to 64 values."""
    net.fc = nn.Identity()  # type: ignore[assignment]
    return net


def searched(net: nn.Module, sets: Sets, *, runtime: Runtime) -> Diagnosis:
    """Search an encoder for its smallest patch."""
    return METHOD.diagnose(net, data=sets.unseen, seed=0, runtime=runtime)


def _num_found(found: list[Diagnosis]) -> str:
    return f"{sum(d.status == 'found' for d in found)} of {len(found)}"


if __name__ == "__main__":
    sys.exit(main("diagnose_encoder", body))
