import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bezoar.cli.main import main
from bezoar.data import ImageData, noise_images, write_images
from bezoar.models import Architecture, save_model

FAST = ("--steps", "2", "--lr", "0.5", "--l1-weight", "0.0001")


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def sentence(self) -> str:
        """The one line on stderr."""
        assert self.err.startswith("bezoar: error: expected "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "bug" not in self.err, self.err
        assert self.out == ""
        return self.err


Call = Callable[..., Answer]


@pytest.fixture
def bezoar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Call the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> Answer:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture(scope="session")
def data() -> ImageData:
    return noise_images(24)


@pytest.fixture
def photos(data: ImageData, tmp_path: Path) -> Path:
    """A folder of class folders."""
    write_images(data, tmp_path / "photos", format="class_folders")
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, data: ImageData) -> Path:
    """A model of two classes on disk, as ``bezoar train`` writes it."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    architecture = Architecture(
        name="convnet", num_classes=2, width=4, class_names=data.class_names
    )
    save_model(architecture.build(), path, architecture=architecture)
    return path
