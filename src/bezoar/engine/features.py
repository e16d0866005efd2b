"""Features of a source of any size: computed once, kept on disk, read by many."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bezoar.data import ImageData, Unreadable
from bezoar.engine.local import BlockSource, run_blocks
from bezoar.engine.relay import Relay
from bezoar.errors import StorageError
from bezoar.files import atomic
from bezoar.metrics import represent
from bezoar.models import fingerprint
from bezoar.results import Features, Scores
from bezoar.runtime import Runtime

_SIZE = "rows_in_block"


def feature_pass(
    source: BlockSource,
    *,
    model: nn.Module,
    layer: str | None,
    image_size: tuple[int, int],
    runtime: Runtime,
) -> tuple[Features, tuple[Unreadable, ...]]:
    """Compute the features of a source in one pass, in memory for two blocks of images.

    They lie on disk in half precision, one safetensors file per block, and are read
    from there when they are used. With ``runtime.work_dir`` they stay in its folder
    ``features``: a run that was killed goes on where it was, and a second method finds
    them there. Without, they take a temporary folder, which is gone from view at once.

    Args:
        source: The images.
        model: Maps images in [0, 1] to logits or embeddings.
        layer: As for ``represent``.
        image_size: Height and width that images are resized to.
        runtime: Where and how to run.

    Returns:
        The features, and the images that could not be read. An ``EmptyError`` follows
        when none can be read, a ``StorageError`` when the work folder holds others.
    """
    key = _key(
        model=fingerprint(model),
        modules=[type(module).__qualname__ for module in model.modules()],
        layer=layer,
        image_size=image_size,
        dtype=str(runtime.compute_dtype()),
        format=source.format,
        class_names=source.class_names,
        num_images=source.num_images,
    )
    if runtime.work_dir is not None:
        folder = runtime.work_dir / "features" / key[:12]
        return _passed(source, model, layer, image_size, folder, key, runtime)
    with TemporaryDirectory(prefix="bezoar-features-") as name:
        # The files stay mapped after they are unlinked, and go with the last tensor.
        return _passed(source, model, layer, image_size, Path(name), key, runtime)


def _passed(
    source: BlockSource,
    model: nn.Module,
    layer: str | None,
    image_size: tuple[int, int],
    folder: Path,
    key: str,
    runtime: Runtime,
) -> tuple[Features, tuple[Unreadable, ...]]:
    relay = Relay(runtime.progress, stage="represent")
    quiet = replace(relay.inside(runtime), progress=Runtime().progress)

    def keep(found: Features) -> Scores:
        _write(_shard(folder, found.ids, key=key), found)
        size = torch.full((len(found.ids),), float(len(found.ids)))
        return Scores(ids=found.ids, labels=found.labels, columns={_SIZE: size})

    scores, unreadable = run_blocks(
        source,
        _Representing(model=model, layer=layer, runtime=quiet),
        image_size=image_size,
        key=key,
        runtime=replace(runtime, work_dir=folder),
        stage="represent",
        keep=keep,
    )
    vectors, logits, first = [], [], 0
    while first < len(scores.ids):
        end = first + int(scores.columns[_SIZE][first])
        shard = _read(_shard(folder, scores.ids[first:end], key=key), rows=end - first)
        vectors.append(shard["vectors"])
        logits.append(shard["logits"])
        first = end
    features = Features(
        ids=scores.ids,
        labels=scores.labels,
        class_names=source.class_names,
        vectors=tuple(vectors),
        logits=tuple(logits),
    )
    return features, unreadable


@dataclass(frozen=True, kw_only=True, eq=False)
class _Representing:
    """Computes the features of a block, here or on a worker that it was sent to."""

    model: nn.Module
    layer: str | None
    runtime: Runtime

    def __call__(self, data: ImageData) -> Features:
        return represent(data, model=self.model, layer=self.layer, runtime=self.runtime)


def _key(**facts: object) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _shard(folder: Path, ids: tuple[str, ...], *, key: str) -> Path:
    return folder / f"{_key(key=key, ids=ids)}.safetensors"


def _write(path: Path, features: Features) -> None:
    tensors = {"vectors": features.vectors[0], "logits": features.logits[0]}
    with atomic(path) as temporary:
        save_file(tensors, temporary)


def _read(path: Path, *, rows: int) -> dict[str, torch.Tensor]:
    try:
        shard: dict[str, torch.Tensor] = load_file(path)
        if {len(shard["vectors"]), len(shard["logits"])} != {rows}:
            raise ValueError("another number of rows")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"expected the features of {rows} images in {str(path)!r}, got none that "
            f"can be read ({error}); remove {str(path.parent)!r} and run again"
        ) from error
    return shard
