"""The chain on CIFAR-10: a poisoned folder comes back clean, a clean one as it was.

Two folders of PNG files are written, one class a folder: one with BadNets, one as it
is. The chain is called on each as a user would call it, with default settings, and is
told nothing but where the folder lies; test images and the attack's trigger serve to
measure the models alone. Settings and gates are the same for all seeds.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bezoar.attacks import BadNets, write_manifest
from bezoar.bench.recipe import Claims, cifar10, main
from bezoar.data import ImageData, content_keys, open_source, write_images
from bezoar.guarding import Guard, Guarded, guard
from bezoar.results import Poisoned
from bezoar.runtime import Progress, Runtime

LONG = True  # two chains of two or three minutes
NUM_IMAGES, NUM_TEST = 3000, 2000
ATTACK = BadNets(poison_rate=0.05)
RULE = Guard(screen_images=1000)

# The gates that were set before anything was measured.
BEFORE, AFTER, FLAGGED = 0.95, 0.05, 0.01


def body(claims: Claims, report: Callable[[Progress], None]) -> None:
    """Guard a poisoned folder and a clean one."""
    train = cifar10("train", limit=NUM_IMAGES)
    test = cifar10("test", limit=NUM_TEST)
    drill = ATTACK.poison(train, seed=claims.seed)
    with tempfile.TemporaryDirectory(prefix="bezoar-guard-") as name:
        root = Path(name)
        write_images(drill.data, root / "poisoned", format="class_folders")
        write_images(train, root / "clean", format="class_folders")
        write_images(test, root / "test", format="class_folders")
        write_manifest(drill, root / "attack.json")
        poisoned(claims, root, drill, Runtime(progress=report))
        clean(claims, root, Runtime(progress=report))


def poisoned(claims: Claims, root: Path, drill: Poisoned, runtime: Runtime) -> None:
    """Guard the poisoned folder, and measure the model before and after."""
    was = fingerprint(root / "poisoned")
    done = guard(
        root / "poisoned",
        out=root / "run",
        test=root / "test",
        attack=root / "attack.json",
        rule=RULE,
        seed=claims.seed,
        runtime=runtime,
    )
    claims.equal("poisoned_exit_code", done.exit_code, 1)
    assert done.before is not None
    assert done.after is not None
    assert done.clean is not None
    assert done.before.attack_success_rate is not None
    assert done.after.attack_success_rate is not None
    claims.at_least("success_before", done.before.attack_success_rate, BEFORE)
    claims.at_most("success_after", done.after.attack_success_rate, AFTER)
    same = fingerprint(root / "poisoned") == was
    claims.equal("poisoned_folder_untouched", str(same), "True")
    left = len(poison_in(done.clean, drill))
    kept, _ = open_source(done.clean).read()
    claims.reported("poison_left", left)
    claims.facts["poisoned"] = {
        **told(done),
        "images": len(drill.data),
        "poisoned_images": len(drill.poison_indices),
        "dropped": len(done.plan.dropped),
        "kept": len(kept),
        "poison_left": left,
        "kept_byte_for_byte": is_part_of(done.clean, root / "poisoned"),
        "clean_accuracy": [done.before.clean_accuracy, done.after.clean_accuracy],
        "clean_target_rate": [
            done.before.clean_target_rate,
            done.after.clean_target_rate,
        ],
    }


def clean(claims: Claims, root: Path, runtime: Runtime) -> None:
    """Guard the clean folder: nothing is accused, and nothing written."""
    was = fingerprint(root / "clean")
    done = guard(
        root / "clean",
        out=root / "run-clean",
        rule=RULE,
        seed=claims.seed,
        runtime=runtime,
    )
    assert done.detection is not None
    flagged = done.detection.flagged.float().mean().item()
    claims.equal("clean_exit_code", done.exit_code, 0)
    claims.at_most("clean_flagged_share", flagged, FLAGGED)
    same = fingerprint(root / "clean") == was and done.clean is None
    claims.equal("clean_folder_unchanged", str(same), "True")
    claims.facts["clean"] = told(done)


def told(done: Guarded) -> dict[str, object]:
    """Return what the steps came to."""
    return {
        "status": done.status,
        "steps": {s.name: [s.status, s.seconds] for s in done.steps},
    }


def fingerprint(folder: Path) -> str:
    """Return one name for the names and bytes of all files in a folder."""
    digest = hashlib.blake2b()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def is_part_of(part: Path, whole: Path) -> bool:
    """Return whether every file of a folder is in another, with the same bytes."""
    return all(
        path.read_bytes() == (whole / path.relative_to(part)).read_bytes()
        for path in part.rglob("*")
        if path.is_file()
    )


def poison_in(folder: Path, drill: Poisoned) -> list[str]:
    """Return the images of a folder that were poisoned, by their pixels and label."""
    bad = set(keys(drill.data.subset(drill.is_poison)))
    data, _ = open_source(folder).read(image_size=(32, 32))
    return [i for i, key in zip(data.ids, keys(data), strict=True) if key in bad]


def keys(data: ImageData) -> list[tuple[str, int]]:
    """Return a name for each image and its label."""
    return list(zip(content_keys(data.images), data.labels.tolist(), strict=True))


if __name__ == "__main__":
    sys.exit(main("guard", body))
