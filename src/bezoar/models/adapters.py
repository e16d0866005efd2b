"""Models that timm, open_clip and the user's own code build.

The libraries are imported only here and only when asked for. What foreign code draws
while it builds a model leaves the global random state as it was.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bezoar.errors import ModelError
from bezoar.models.huggingface import square_size
from bezoar.models.probe import reason
from bezoar.models.weights import put_weights, read_weights
from bezoar.models.wrap import Normalized


def from_timm(
    name: str, path: Path, *, unsafe_pickle: bool, classifies: bool = True
) -> tuple[Normalized, int | None]:
    """Build a network of timm and load weights into it.

    Args:
        name: The network's name in timm; with its tag (``vit_tiny.augreg``) where the
            normalisation depends on it.
        path: The weights; they also tell the number of classes.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.
        classifies: False leaves its classifier out, for the vectors before it.

    Returns:
        The network with the normalisation that timm tells for it, and its number of
        classes.
    """
    timm = _library("timm")
    weights = read_weights(path, unsafe_pickle=unsafe_pickle)
    with _foreign(f"a network of timm called {name!r}"):
        model = timm.create_model(name, pretrained=False)
        if not classifies:
            weights = _without_classifier(weights, model)
            model = timm.create_model(name, pretrained=False, num_classes=0)
        count = _other_classes(model, weights) if classifies else None
        if count is not None:
            model = timm.create_model(name, pretrained=False, num_classes=count)
        config = timm.data.resolve_model_data_config(model)
        wrapped = Normalized(
            model,
            mean=config["mean"],
            std=config["std"],
            image_size=square_size(config["input_size"][-2:]),
        )
    put_weights(model, weights, path=path)
    return wrapped, getattr(model, "num_classes", None)


def from_open_clip(
    name: str, path: Path, *, unsafe_pickle: bool
) -> tuple[Normalized, None]:
    """Build the image encoder of an open_clip model and load weights into it.

    The normalisation is that of open_clip_config.json beside the weights, as the Hub
    has it, or else what open_clip tells for the network.

    Args:
        name: The model's name in open_clip.
        path: The weights, of the whole model or of the encoder alone.
        unsafe_pickle: Accept weights in a pickle, read as tensors alone.

    Returns:
        The encoder, from images in [0, 1] to vectors; it has no classes.
    """
    open_clip = _library("open_clip")
    weights = read_weights(path, unsafe_pickle=unsafe_pickle)
    beside = path.with_name("open_clip_config.json")
    with _foreign(f"a model of open_clip called {name!r}"):
        encoder = open_clip.create_model(name).visual
        settings = dict(encoder.preprocess_cfg)
        if beside.is_file():
            settings |= json.loads(beside.read_text(encoding="utf-8"))["preprocess_cfg"]
        wrapped = Normalized(
            encoder,
            mean=settings["mean"],
            std=settings["std"],
            image_size=square_size(settings["size"]),
        )
    start = "visual."
    tower = {
        n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)
    }
    put_weights(encoder, tower or weights, path=path)
    return wrapped, None


def from_file(path: Path, factory: str, *, num_classes: int | None) -> nn.Module:
    """Run the user's function that returns a model.

    Args:
        path: A Python file; it is imported, with its folder on the path.
        factory: Name of the function in it.
        num_classes: Given to the function if it has a parameter of this name.

    Returns:
        What the function returned.

    Raises:
        ModelError: If the file or the function is missing or fails, or what comes
            back is no model.
    """
    if not path.is_file():
        raise ModelError(
            f"expected a Python file at {str(path)!r}, got no such file; check the path"
        )
    with _on_path(path.parent):
        with _foreign(f"Python code in {path.name!r} that can be imported"):
            functions = _imported(path)
        function = getattr(functions, factory, None)
        if not inspect.isroutine(function) and not inspect.isclass(function):
            names = [name for name in vars(functions) if not name.startswith("_")]
            near = difflib.get_close_matches(factory, names, n=3, cutoff=0.3)
            raise ModelError(
                f"expected a function {factory!r} in {path.name!r}, got none; "
                f"name one that is there{': ' if near else ''}{', '.join(near)}"
            )
        with _foreign(f"a model from {factory}() in {path.name!r}"):
            takes = num_classes is not None and "num_classes" in _parameters(function)
            model = function(**({"num_classes": num_classes} if takes else {}))
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"expected a torch module from {factory}() in {path.name!r}, got a "
            f"{type(model).__name__}; return the model itself"
        )
    return model


@contextmanager
def _foreign(what: str) -> Iterator[None]:
    # Whatever foreign code raises becomes one sentence that begins with its purpose.
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"expected {what}, got {reason(error)}; correct the name or the code"
        ) from error


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _imported(path: Path) -> ModuleType:
    name = f"bezoar_model_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


def _parameters(function: Any) -> Mapping[str, object]:
    return inspect.signature(function).parameters


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # the latter from a broken torchvision
        raise ModelError(
            f"expected {name} to be installed, got {reason(error)}; "
            "run pip install 'bezoar[hub]'"
        ) from error


def _without_classifier(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    heads = model.default_cfg.get("classifier") or ()
    starts = tuple(f"{n}." for n in ([heads] if isinstance(heads, str) else heads))
    return {n: w for n, w in weights.items() if not n.startswith(starts)}


def _other_classes(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    # The number of rows in those tensors that have another number of rows; only a
    # head for other classes gives one number.
    wanted = model.state_dict()
    counts = {
        len(tensor)
        for name, tensor in weights.items()
        if name in wanted
        and tensor.shape != wanted[name].shape
        and tensor.shape[1:] == wanted[name].shape[1:]
    }
    return counts.pop() if len(counts) == 1 else None
