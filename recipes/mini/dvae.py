"""D-VAE on CIFAR-10: networks fail on sets made unlearnable, and learn again.

2,000 training images, 200 a class or so, and 2,000 test images; a small convnet, and an
autoencoder of width 8 where the paper has 64 (``DVAE.mini``). The set is poisoned with
even patches (LSP), with one pixel (OPS) and with a recurrence (AR), and purified with
no knowledge of that; so is the clean set, for what purifying costs by itself. A network
is trained on each, on what shortcut squeezing makes of it, and on what is left when the
patterns of the classes are taken off and nothing is trained (``DVAE.quick``).
``--attack NAME`` runs one of them with the control.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

from bezoar.attacks import AR, LSP, OPS
from bezoar.bench.recipe import Claims, cifar10, main, off_grid
from bezoar.bench.unlearnable import UnlearnableBench
from bezoar.data import ImageData
from bezoar.purify import DVAE, ShortcutSqueezing
from bezoar.purify.screening import compared
from bezoar.results import Purification
from bezoar.runtime import Progress, Runtime
from bezoar.train import Training

LONG = True  # four purifications, and twenty trainings
NUM_IMAGES, NUM_TEST = 2000, 2000
PROTOCOL = Training(epochs=20)
METHOD = DVAE.mini()
ATTACKS: dict[str, LSP | OPS | AR] = {"lsp": LSP(), "ops": OPS(), "ar": AR()}
# The probe that sees what an attack added, and how well it has to, before.
PROBES = {
    "lsp": ("pixels", 0.95),
    "ops": ("pixels", 0.90),
    "ar": ("autocorrelation", 0.90),
}
SQUEEZES = ("jpeg", "grey")
_Table = Mapping[str, Mapping[str, float]]


def body(
    claims: Claims, report: Callable[[Progress], None], names: tuple[str, ...]
) -> None:
    """Make CIFAR-10 unlearnable and learnable again."""
    bench = UnlearnableBench(
        train=off_grid(cifar10("train", limit=NUM_IMAGES)),
        test=off_grid(cifar10("test", limit=NUM_TEST)),
        seed=claims.seed,
        runtime=Runtime(progress=report),
        protocol=PROTOCOL,
    )
    clean, control = _table(claims, bench, "clean", bench.train)
    claims.at_least("clean accuracy", clean["given"]["accuracy"], 0.40)
    claims.wanted("clean accuracy, asked", clean["given"]["accuracy"], at_least=0.45)
    claims.reported("clean accuracy, purified", clean["dvae"]["accuracy"])
    found = control.figures["classes_with_pattern"]
    claims.at_most("clean: classes in which a pattern is found", found, 0)
    claims.reported("clean: gaps of the probes", _gaps(bench, bench.train, control))
    for name in names:
        poisoned = ATTACKS[name].poison(bench.train, seed=claims.seed).data
        table, done = _table(claims, bench, name, poisoned)
        _told(claims, name, table, clean)
        _recovered(claims, name, table, clean)
        claims.reported(f"{name}: gaps of the probes", _gaps(bench, poisoned, done))
        if name != "ar":  # its noise is new in each image: no class predicts it
            _along(claims, name, poisoned, bench, done)


def _table(
    claims: Claims, bench: UnlearnableBench, name: str, data: ImageData
) -> tuple[_Table, Purification]:
    done = METHOD.purify(data, seed=bench.seed, runtime=bench.runtime)
    alone = DVAE.quick().purify(data, seed=bench.seed, runtime=bench.runtime)
    sets = {"given": data, "dvae": done.data, "quick": alone.data}
    for squeeze in SQUEEZES:
        sets[squeeze] = ShortcutSqueezing(squeeze=squeeze).purify(data).data  # type: ignore[arg-type]
    table = {kind: bench.row(images) for kind, images in sets.items()}
    if name != "clean":
        for kind, images in sets.items():
            table[kind]["left"] = bench.left(images, poisoned=data)
    claims.facts[name] = table
    claims.facts[f"{name}_purify"] = {
        "seconds": round(done.provenance.seconds, 1),
        "quick_seconds": round(alone.provenance.seconds, 1),
        **{k: round(v, 3) for k, v in done.figures.items()},
    }
    return table, done


def _told(claims: Claims, name: str, table: _Table, clean: _Table) -> None:
    probe, before = PROBES[name]
    claims.at_least(f"{name}: told before, {probe}", table["given"][probe], before)
    claims.at_least(f"{name}: PSNR to clean", table["dvae"]["psnr"], 20.0)
    after, base = table["dvae"][probe], clean["dvae"][probe]
    claims.at_most(f"{name}: told after, {probe}", after, 0.5)
    claims.at_most(f"{name}: told after, above control", after - base, 0.15)
    for kind in ("quick", "jpeg"):
        claims.reported(f"{name}: told after, {kind}", table[kind][probe])
    for kind in ("dvae", "quick", "jpeg"):
        title = f"{name}: share of the noise's height left, {kind}"
        claims.reported(title, table[kind]["left"])


def _recovered(claims: Claims, name: str, table: _Table, clean: _Table) -> None:
    poisoned = table["given"]["accuracy"]
    if name == "lsp":
        claims.at_most("lsp: accuracy, poisoned", poisoned, 0.30)
        claims.wanted("lsp: accuracy, poisoned, asked", poisoned, at_most=0.25)
    room = clean["given"]["accuracy"] - poisoned
    for kind in ("dvae", "quick", *SQUEEZES):
        shared = (table[kind]["accuracy"] - poisoned) / room if room > 0.05 else None
        title = f"{name}: share of accuracy recovered, {kind}"
        if shared is None:
            claims.reported(title, "the attack took none")
        elif (name, kind) == ("lsp", "dvae"):
            claims.at_least(title, shared, 0.6)
        else:
            claims.reported(title, shared)


def _gaps(bench: UnlearnableBench, given: ImageData, done: Purification) -> str:
    told = compared(given, done.data, alarm_gap=0.15, seeds=(bench.seed,), settings={})
    shown = ", ".join(f"{name} {gap:.2f}" for name, gap in told.gaps.items())
    return f"{shown}: {told.status}"


def _along(
    claims: Claims,
    name: str,
    poisoned: ImageData,
    bench: UnlearnableBench,
    done: Purification,
) -> None:
    found = bench.cosine(done.extras["rough_perturbation"], poisoned=poisoned)
    title = f"{name}: cosine of what was taken out and added"
    if name == "lsp":
        claims.at_least(title, found, 0.4)
    else:
        claims.reported(title, found)


def script(argv: list[str] | None = None) -> int:
    """Run the recipe; return its exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--attack", choices=tuple(ATTACKS))
    options, rest = parser.parse_known_args(argv)
    names = (options.attack,) if options.attack else tuple(ATTACKS)

    def chosen(claims: Claims, report: Callable[[Progress], None]) -> None:
        body(claims, report, names)

    chosen.__doc__ = f"{body.__doc__} --attack {'|'.join(ATTACKS)} runs one of them."
    return main("dvae", chosen, rest)


if __name__ == "__main__":
    sys.exit(script())
