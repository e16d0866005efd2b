"""Twelve kinds of bad input: one clear sentence, exit code 2 or 3, no traceback."""

import errno
import io
import re
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from bezoar.data import ImageData, noise_images, write_images
from bezoar.data.choice import encode_png
from tests.cli.conftest import FAST, Call

PNG = encode_png(noise_images(1).images[0])


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to nothing of its pixels."""
    parts = [
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(1000)),
        b"IEND",
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    )


def test_an_empty_folder(bezoar: Call, model: Path) -> None:
    Path("empty").mkdir()
    answer = bezoar("detect", "empty", "--model", model)
    assert answer.code == 3
    assert "'empty', found none" in answer.sentence


def test_one_class_only(bezoar: Call, photos: Path) -> None:
    shutil.rmtree(photos / "odd")
    answer = bezoar("detect", photos)
    assert answer.code == 2
    assert "at least 2 classes" in answer.sentence
    assert "'even'" in answer.err


def test_one_class_beside_an_empty_folder(bezoar: Call, photos: Path) -> None:
    shutil.rmtree(photos / "odd")
    (photos / "odd").mkdir()
    answer = bezoar("detect", photos, "--arch", "convnet", "--width", "4")
    assert answer.code == 2
    assert "at least 2 classes" in answer.sentence


def test_text_files_named_jpg(bezoar: Call, model: Path) -> None:
    for name in ("even/1.jpg", "odd/2.jpg"):
        Path("texts", name).parent.mkdir(parents=True)
        Path("texts", name).write_text("This is no image.")
    answer = bezoar("detect", "texts", "--model", model)
    assert answer.code == 3
    assert "none that can be read" in answer.sentence
    assert "even/1.jpg" in answer.err


def test_a_truncated_jpeg_is_listed_and_the_run_goes_on(
    bezoar: Call, photos: Path, model: Path
) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG")
    (photos / "even" / "short.jpg").write_bytes(file.getvalue()[:900])
    answer = bezoar("detect", photos, "--model", model, "--json", *FAST)
    assert answer.code == 0
    assert answer.json["num_images"] == 24
    assert answer.json["unreadable"] == [
        {"id": "even/short.jpg", "reason": "truncated: the file ends too early"}
    ]
    listed = Path("bezoar-run/unreadable.csv").read_text()
    assert "even/short.jpg,truncated" in listed
    again = bezoar("detect", photos, "--model", model, *FAST)
    assert "24 scored, 1 unreadable" in again.out


def test_a_png_of_60000_by_60000(bezoar: Call, photos: Path, model: Path) -> None:
    huge = png_header(60_000, 60_000)
    (photos / "even" / "huge.png").write_bytes(huge)
    answer = bezoar("detect", photos, "--model", model, *FAST)
    assert answer.code == 0
    assert "even/huge.png: " in answer.out
    Path("alone").mkdir()
    Path("alone/huge.png").write_bytes(huge)
    answer = bezoar("detect", "alone", "--model", model, *FAST)
    assert answer.code == 3
    assert "60,000" in answer.sentence or "60000" in answer.sentence


def test_weights_that_are_nan(bezoar: Call, photos: Path, model: Path) -> None:
    weights = load_file(model)
    weights["fc.weight"][0, 0] = torch.nan
    save_file(weights, "nan.safetensors")
    answer = bezoar("detect", photos, "--model", "convnet@nan.safetensors")
    assert answer.code == 2
    assert "finite weights, got NaN" in answer.sentence


def test_a_model_of_other_classes(bezoar: Call, model: Path) -> None:
    data = noise_images(6)
    three = ImageData(
        images=data.images,
        labels=torch.arange(6) % 3,
        ids=data.ids,
        class_names=("a", "b", "c"),
    )
    write_images(three, Path("three"), format="class_folders")
    answer = bezoar("detect", "three", "--model", model)
    assert answer.code == 2
    assert "model of 3 classes, got one of 2" in answer.sentence


@pytest.mark.parametrize("verb", ["detect", "evaluate"])
def test_a_model_that_returns_a_tuple(bezoar: Call, photos: Path, verb: str) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n\n\n"
        "class Pair(nn.Module):\n"
        "    def forward(self, images):\n"
        "        return images.mean((2, 3))[:, :2], images\n\n\n"
        "def pair():\n"
        "    return Pair()\n"
    )
    answer = bezoar(verb, photos, "--model", "mine.py:pair")
    assert answer.code == 2
    assert "one tensor (n, classes), got a tuple of 2" in answer.sentence


def test_ids_that_come_twice(bezoar: Call, model: Path) -> None:
    with tarfile.open("twice.tar", "w") as tar:
        for name in ("1", "2", "1"):
            for end, content in ((".png", PNG), (".cls", b"0")):
                header = tarfile.TarInfo(name + end)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    answer = bezoar("detect", "twice.tar", "--model", model, *FAST)
    assert answer.code == 2
    assert "'1' more than once" in answer.sentence


@pytest.mark.parametrize("verb", ["detect", "train", "attack"])
def test_an_output_below_a_file(
    bezoar: Call, photos: Path, model: Path, verb: str
) -> None:
    Path("file").write_text("a file")
    words = {
        "detect": ("--model", model, "--out", "file/run"),
        "train": ("--out", "file/model.safetensors"),
        "attack": ("--out", "file/poisoned"),
    }
    answer = bezoar(verb, photos, *words[verb])
    assert answer.code == 2
    assert re.search("'file.*(Not a directory|File exists)", answer.sentence)
    assert Path("file").read_text() == "a file"


def test_no_space(
    bezoar: Call, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bezoar.storage.tables.pq.ParquetWriter.write_table", full)
    answer = bezoar("detect", photos, "--model", model, *FAST)
    assert answer.code == 2
    assert "No space left on device" in answer.sentence
    assert "free some space" in answer.err
    assert not list(Path("bezoar-run").rglob(".0*.parquet.*"))  # nothing half written


def test_labels_out_of_range(bezoar: Call, model: Path) -> None:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"])
    )
    table = pa.table(
        {"image": [{"bytes": PNG, "path": None}] * 2, "label": [0, 7]},
        schema=features.arrow_schema,
    )
    pq.write_table(table, "labels.parquet")
    answer = bezoar("detect", "labels.parquet", "--model", model)
    assert answer.code == 2
    assert "labels from 0 to 1, got 7" in answer.sentence


def test_a_set_that_is_not_there(bezoar: Call, model: Path) -> None:
    answer = bezoar("detect", "./nowhere", "--model", model)
    assert answer.code == 2
    assert "'./nowhere'" in answer.sentence


def test_json_of_a_hundred_thousand_brackets(
    bezoar: Call, photos: Path, model: Path
) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    Path("decisions.json").write_text(deep)
    words = ("detect", photos, "--model", model, "--decisions", "decisions.json")
    assert "nested too deep" in bezoar(*words).sentence
    for name in ("config.json", "model.json", "encoder.json", "clip.json"):
        folder = Path(f"deep-{name}")
        folder.mkdir()
        (folder / name).write_text(deep)
        shutil.copy(model, folder / "model.safetensors")
        for verb in (("detect", photos, "--model"), ("evaluate", photos, "--model")):
            answer = bezoar(*verb, folder)
            assert answer.code == 2
            assert "expected" in answer.sentence
