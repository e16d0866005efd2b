"""``bezoar detect`` end to end, on images of a few pixels."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from bezoar.catalog import ALIASES
from bezoar.cli import detect as module
from bezoar.cli.sets import check_room
from bezoar.data import (
    ImageData,
    noise_images,
    write_images,
)
from bezoar.detect import Strip
from bezoar.errors import InputError
from bezoar.storage import load_detection, read_object
from tests.cli.conftest import FAST, Call


def test_a_folder_is_ranked_and_everything_is_written(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--out", "run", *FAST)
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith("Images are ranked; no verdict was made")
    assert "24 scored, 0 unreadable" in answer.out
    names = {path.name for path in Path("run").iterdir() if path.name[0] != "."}
    assert names == {
        "blocks",
        "prepared.json",
        "removed.csv",
        "report.html",
        "report.json",
        "run.json",
        "scores.parquet",
        "unreadable.csv",
    }
    found = load_detection(Path("run"))
    top = found.ids[int(found.ranks.argmin())]
    first = next(line for line in answer.out.splitlines() if line.startswith("1 "))
    assert top in first
    told = read_object(Path("run/run.json"))
    assert told["status"] == "done"
    assert told["command"] == f"bezoar detect {photos} --model {model} --out run " + (
        " ".join(FAST)
    )
    assert told["settings"] == {
        "method": "cognitive-distillation",
        **found.provenance.settings,
        "betas": [0.1, 0.1],
    }


def test_json_is_one_object_and_nothing_else(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--json", *FAST)
    found = answer.json
    stored = read_object(Path("bezoar-run/report.json"))
    del stored["report"]  # thumbnails are nothing for a pipe
    assert {key: found[key] for key in stored} == stored
    assert found["num_images"] == 24
    top = found["top"]
    assert isinstance(top, list)
    assert len(top) == 10
    assert [row["score"] for row in top] == sorted(
        (row["score"] for row in top), reverse=True
    )


def test_what_is_flagged_is_left_out_of_the_clean_set(
    bezoar: Call, photos: Path, model: Path
) -> None:
    review = ("--threshold", "review", "--review-rate", "0.25")
    call = ("detect", photos, "--model", model, *FAST)
    answer = bezoar(*call, *review, "--clean", "clean", "--out", "a", "--json")
    assert answer.code == 0  # a list to look through is no claim
    assert answer.json["num_written"] == 18
    found = load_detection(Path("a"))
    flagged = {found.ids[i] for i in found.flagged.nonzero().flatten().tolist()}
    left = {str(p.relative_to("clean")) for p in Path("clean").rglob("*.png")}
    assert left == set(found.ids) - flagged
    with Path("a/removed.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == flagged
    assert sorted(p.name for p in Path("clean").iterdir()) == ["even", "odd"]
    again = bezoar(*call, *review, "--clean", "clean", "--out", "b")
    assert again.code == 2
    assert "something is already" in again.sentence


def test_nothing_is_written_when_nothing_is_flagged(
    bezoar: Call, photos: Path, model: Path
) -> None:
    answer = bezoar("detect", photos, "--model", model, "--clean", "clean", *FAST)
    assert answer.code == 0
    assert "nothing was removed, so clean was not written" in answer.out
    assert not Path("clean").exists()


def test_poison_is_exit_code_1(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, "--threshold", "sigmas", *FAST)
    answer = bezoar(*call, "--sigmas", "0.1")
    assert answer.code == 1
    assert "verdict" in answer.out
    assert "found (rule: sigmas)" in answer.out
    assert load_detection(Path("bezoar-run")).flagged.any()


def test_scores_without_meaning_are_an_error_that_says_what_to_try(
    bezoar: Call, photos: Path, model: Path
) -> None:
    heavy = ("--steps", "60", "--lr", "1", "--l1-weight", "1000")
    answer = bezoar("detect", photos, "--model", model, *heavy)
    assert answer.code == 2
    assert "not scoreable" in answer.out
    assert "lower l1_weight" in answer.err
    assert Path("bezoar-run/report.json").exists()


def test_a_reference_is_compared_with(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, *FAST)
    assert bezoar(*call, "--out", "clean-run").code == 0
    answer = bezoar(*call, "--reference", "clean-run", "--out", "run", "--json")
    verdict = answer.json["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["rule"] == "reference"
    assert verdict["status"] == "nothing found"  # they are the same images
    assert answer.code == 0
    assert "nowhere" in bezoar(*call, "--reference", "nowhere").sentence


def test_masks_are_kept_when_asked_for(bezoar: Call, photos: Path, model: Path) -> None:
    call = ("detect", photos, "--model", model, "--num-masks", "3", *FAST)
    assert bezoar(*call).code == 0
    found = load_detection(Path("bezoar-run"))
    assert found.masks is not None
    assert found.masks.shape == (3, 8, 8)
    top = found.ranks.argsort()[:3].tolist()
    assert found.mask_ids == tuple(found.ids[i] for i in top)
    share = found.masks.float().mean((1, 2)) / 255
    assert torch.allclose(share, found.columns["mask_share"][top], atol=1 / 255)


def test_images_without_labels_need_a_model(
    bezoar: Call, photos: Path, model: Path
) -> None:
    flat = Path("flat")
    flat.mkdir()
    for i, path in enumerate(photos.rglob("*.png")):
        shutil.copy(path, flat / f"{i}.png")
    answer = bezoar("detect", flat, *FAST)
    assert answer.code == 2
    assert "labels" in answer.sentence
    answer = bezoar("detect", flat, "--model", model, *FAST)
    assert answer.code == 0
    assert "own predictions took their place" in answer.out


def test_presets_and_options_go_together(
    bezoar: Call, photos: Path, model: Path
) -> None:
    call = ("detect", photos, "--model", model, *FAST)
    for out, named in (("a", ()), ("b", ("cognitive-distillation",))):
        words = (*call[:2], *named, *call[2:], "--preset", "official-code")
        assert bezoar(*words, "--threshold", "none", "--out", out).code == 0
        settings = load_detection(Path(out)).provenance.settings
        official = module.DETECTORS["cognitive-distillation"].official_code()  # type: ignore[attr-defined,union-attr]
        assert settings["tv_weight"] == official.tv_weight
        assert (settings["steps"], settings["threshold"]) == (2, "none")
    assert bezoar(*call, "--preset", "fast").code == 2


def test_a_model_in_another_order_of_classes_is_refused(
    bezoar: Call, model: Path, tmp_path: Path
) -> None:
    turned = ImageData(
        images=noise_images(4).images,
        labels=torch.tensor([0, 1, 0, 1]),
        ids=("a", "b", "c", "d"),
        class_names=("odd", "even"),
    )
    write_images(turned, tmp_path / "t.parquet", format="parquet")
    answer = bezoar("detect", "t.parquet", "--model", model, *FAST)
    assert answer.code == 2
    assert "order even, odd" in answer.sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "MODEL", "--arch", "resnet18"), "leave out --model"),
        (("--model", "MODEL", "--epochs", "3"), "leave out --model"),
        (("--device", "cuda:99"), "such as cpu"),
        (("--device", "abacus"), "such as cpu"),
        (("--image-size", "0"), "positive --image-size"),
        (("--batch-size", "0"), "positive sizes"),
        (("--out", "photos/run"), "outside the set"),
        (("--clean", "photos/clean"), "outside the set"),
        (("--clean", "photos"), "outside the set"),
    ],
)
def test_calls_without_sense_are_refused(
    bezoar: Call, photos: Path, model: Path, words: tuple[str, ...], told: str
) -> None:
    given = [str(model) if word == "MODEL" else word for word in words]
    answer = bezoar("detect", "photos", *given)
    assert answer.code == 2
    assert told in answer.sentence
    assert sorted(p.name for p in photos.iterdir()) == ["even", "odd"]


def test_settings_that_a_method_refuses_are_an_error_of_usage(
    bezoar: Call, photos: Path
) -> None:
    answer = bezoar("detect", photos, "--steps", "0")
    assert answer.code == 2
    assert "expected steps and mask_scale of at least 1" in answer.err
    assert "Traceback" not in answer.err


def test_sets_beyond_the_memory_are_refused() -> None:
    check_room(1000, (32, 32))
    with pytest.raises(InputError, match="fits into memory, got 100,000,000 images"):
        check_room(100_000_000, (224, 224))


@pytest.mark.parametrize("name", ["spectral-signatures", "ss", "ac", "no"])
def test_other_methods_take_the_same_words(
    bezoar: Call, photos: Path, model: Path, name: str
) -> None:
    answer = bezoar("detect", photos, name, "--model", model, "--json")
    assert answer.code == 0
    provenance = answer.json["provenance"]
    assert isinstance(provenance, dict)
    assert provenance["method"] == ALIASES.get(name, name)
    assert (Path("bezoar-run") / "features").is_dir()
    again = bezoar("detect", photos, name, "--model", model, "--json")
    assert again.json["top"] == answer.json["top"]
    known = bezoar(
        "detect", photos, name, "--model", model, "--reference", "bezoar-run"
    )
    assert known.code == (0 if name == "no" else 2)


def test_several_methods_make_one_table(
    bezoar: Call, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.DETECTORS, "strip", lambda: Strip(num_overlays=2))  # type: ignore[attr-defined]
    call = ("detect", photos, "--model", model, "--methods", "ss,strip,ac")
    answer = bezoar(*call, "--json")
    assert answer.code == 0
    found = load_detection(Path("bezoar-run"))
    names = {"ss_score", "ss_rank", "ss_spectral_projection", "strip_entropy"}
    assert names | {"ac_rank", "ac_silhouette"} <= found.columns.keys()
    weights = found.provenance.settings["weights"]
    assert weights == {"ss": 0.9, "strip": 0.05, "ac": 0.05}
    assert "verdicts by method: ss: ranking" in found.verdict.health[-1]
    again = bezoar(*call, "--json")  # everything is there already
    assert again.json["top"] == answer.json["top"]
    wrong = bezoar("detect", photos, "--methods", "ss,spectral-signatures")
    assert "each once" in wrong.sentence
    both = bezoar("detect", photos, "ac", "--methods", "ss")
    assert "leave one out" in both.sentence


def test_a_method_that_trains_its_own_network_trains_no_other(
    bezoar: Call, photos: Path
) -> None:
    answer = bezoar("detect", photos, "li", "--isolation-epochs", "1")
    assert answer.code == 0
    assert "none: the method trains its own" in answer.out
    assert not Path("bezoar-run/model.safetensors").exists()
    assert "early_loss" in load_detection(Path("bezoar-run")).columns
    known = bezoar("detect", photos, "li", "--reference", "bezoar-run", "--out", "b")
    assert "expected no reference for LossIsolation" in known.sentence
