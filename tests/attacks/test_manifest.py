"""Manifests: what is written comes back, and what was tampered with does not."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from bezoar.attacks import (
    SIG,
    Attack,
    BadNets,
    Blended,
    LabelConsistent,
    Trojan,
    WaNet,
    attack_from_manifest,
    fingerprint,
    read_manifest,
    write_manifest,
)
from bezoar.attacks import manifest as module
from bezoar.data import content_keys, noise_images
from bezoar.errors import InputError, StorageError
from bezoar.results import Poisoned

DATA = noise_images(60, size=16)
DRILLS: list[Attack] = [
    BadNets(size=5, offset=(1, 2), poison_rate=0.1),
    Blended(alpha=0.1, pattern_seed=4),
    LabelConsistent(steps=1, pattern="checker"),
    SIG(frequency=5, target_class=1),
    SIG(form="wrapped"),
    Trojan(),
    WaNet(grid_size=7, grid_seed=2),
]


def poison(attack: Attack) -> Poisoned:
    if isinstance(attack, LabelConsistent):
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
        return attack.poison(DATA, model=model, seed=6)
    return attack.poison(DATA, seed=6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drill" / "manifest.json"


@pytest.mark.parametrize("attack", DRILLS, ids=lambda a: type(a).__name__)
def test_a_manifest_comes_back_whole(attack: Attack, path: Path) -> None:
    poisoned = poison(attack)
    write_manifest(poisoned, path)
    found = read_manifest(path)
    assert found.settings == asdict(attack)
    assert (found.attack, found.seed) == (poisoned.provenance.method, 6)
    assert found.target_class == attack.target_class
    assert found.versions == poisoned.provenance.versions
    assert (found.num_images, found.image_shape) == (60, (3, 16, 16))
    assert found.poison_rate == len(found.poisoned) / 60
    assert found.fingerprint == fingerprint(poisoned.data)
    rows = poisoned.poison_indices
    keys = content_keys(poisoned.data.images)
    assert [p.id for p in found.poisoned] == [DATA.ids[i] for i in rows]
    assert [p.original_label for p in found.poisoned] == [
        int(DATA.labels[i]) for i in rows
    ]
    assert [p.content_key for p in found.poisoned] == [keys[i] for i in rows]


@pytest.mark.parametrize("attack", DRILLS, ids=lambda a: type(a).__name__)
def test_the_attack_comes_back_and_applies_the_same(attack: Attack, path: Path) -> None:
    write_manifest(poison(attack), path)
    again = attack_from_manifest(path)
    assert again == attack
    assert again.apply(DATA.images).equal(attack.apply(DATA.images))


def test_a_stored_grid_warps_without_our_code(path: Path) -> None:
    attack = WaNet()
    write_manifest(poison(attack), path)
    grid = load_file(path.with_suffix(".safetensors"))["grid"]
    moved = functional.grid_sample(
        DATA.images.double(), grid.expand(60, -1, -1, -1), align_corners=True
    )
    assert (moved + 1e-6).floor().byte().equal(attack.apply(DATA.images))


def test_a_manifest_is_the_same_each_time(path: Path) -> None:
    write_manifest(poison(WaNet()), path)
    before = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()
    write_manifest(poison(WaNet()), path)
    after = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()
    assert after == before
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "manifest.json",
        "manifest.safetensors",
    ]


def test_a_pair_may_be_moved_under_another_name(path: Path) -> None:
    write_manifest(poison(Blended()), path)
    for suffix in (".json", ".safetensors"):
        path.with_suffix(suffix).rename(path.with_name(f"other{suffix}"))
    assert attack_from_manifest(path.with_name("other.json")) == Blended()


def test_the_fingerprint_knows_the_set_but_not_its_order() -> None:
    turned = DATA.take(torch.arange(59, -1, -1))
    assert fingerprint(turned) == fingerprint(DATA)
    assert fingerprint(replace(DATA, labels=1 - DATA.labels)) != fingerprint(DATA)
    assert fingerprint(DATA.take(torch.arange(59))) != fingerprint(DATA)
    other = replace(DATA, ids=(*DATA.ids[:-1], "other"))
    assert fingerprint(other) != fingerprint(DATA)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def resign(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who also mends its SHA-256."""

    def change_and_sign(content: dict[str, Any]) -> None:
        del content["sha256"]
        change(content)
        content["sha256"] = module._digest(content)

    edit(path, change_and_sign)


def test_a_manifest_changed_by_hand_is_refused(path: Path) -> None:
    write_manifest(poison(BadNets()), path)
    edit(path, lambda content: content.update(target_class=1))
    with pytest.raises(StorageError, match="another SHA-256 than the one it states"):
        read_manifest(path)


def test_another_format_is_refused(path: Path) -> None:
    write_manifest(poison(BadNets()), path)
    edit(path, lambda content: content.update(format=2))
    with pytest.raises(StorageError, match="got another format"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "\x00"])
def test_what_is_no_manifest_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StorageError, match="as write_manifest wrote it, got"):
        read_manifest(path)


def test_a_missing_manifest_is_named(path: Path) -> None:
    with pytest.raises(StorageError, match=r"expected to read 'manifest\.json'"):
        read_manifest(path)


def test_a_missing_trigger_is_named(path: Path) -> None:
    write_manifest(poison(BadNets()), path)
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(StorageError, match=r"expected to read 'manifest\.safetensors'"):
        read_manifest(path)


def test_a_damaged_trigger_is_refused(path: Path) -> None:
    write_manifest(poison(WaNet()), path)
    beside = path.with_suffix(".safetensors")
    raw = bytearray(beside.read_bytes())
    raw[-1] ^= 1
    beside.write_bytes(raw)
    with pytest.raises(StorageError, match="than the manifest states"):
        read_manifest(path)


def test_a_trigger_that_is_no_safetensors_is_refused(path: Path) -> None:
    write_manifest(poison(WaNet()), path)
    path.with_suffix(".safetensors").write_bytes(b"nonsense")
    digest = module._sha256(b"nonsense")
    resign(path, lambda content: content.update(trigger_sha256=digest))
    with pytest.raises(StorageError, match="no safetensors"):
        read_manifest(path)


@pytest.mark.parametrize(
    "change",
    [
        {"attack": "other"},
        {"settings": {"sharpness": 3}},
        {"settings": {"poison_rate": 2.0}},
    ],
)
def test_an_attack_that_is_not_known_is_refused(
    path: Path, change: dict[str, object]
) -> None:
    write_manifest(poison(BadNets()), path)
    resign(path, lambda content: content.update(change))
    with pytest.raises(StorageError, match="not known here"):
        attack_from_manifest(path)


def test_a_trigger_other_than_the_settings_make_is_refused(path: Path) -> None:
    write_manifest(poison(WaNet()), path)
    resign(path, lambda content: content["settings"].update(grid_seed=1))
    with pytest.raises(StorageError, match="apply the stored tensors instead"):
        attack_from_manifest(path)


def test_only_json_and_only_known_attacks_are_written(path: Path) -> None:
    poisoned = poison(BadNets())
    with pytest.raises(InputError, match=r"end in \.json, got 'm\.safetensors'"):
        write_manifest(poisoned, path.with_name("m.safetensors"))
    foreign = replace(
        poisoned, provenance=replace(poisoned.provenance, method="handmade")
    )
    with pytest.raises(InputError, match="got 'handmade'; write a manifest for those"):
        write_manifest(foreign, path)
    assert not path.parent.exists()


def test_a_manifest_holds_nothing_of_this_machine(path: Path) -> None:
    write_manifest(poison(WaNet()), path)
    assert str(path.parent) not in path.read_text()
