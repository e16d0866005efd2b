"""The model that a detection looks at: one that is given, or one trained for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from bezoar.cli.sets import check_classes, read_whole
from bezoar.data import ImageSource
from bezoar.errors import InputError
from bezoar.models import Architecture, fingerprint, load_model, save_model
from bezoar.runtime import Runtime
from bezoar.train import Training, forget_training, train_classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class Victim:
    """A model, or how to train it.

    Attributes:
        text: Where it is from, in words.
        facts: What makes it this model and no other.
        remarks: What the reader should know about it.
        model: The model, where it is given.
        architecture: Of the model to train, where none is given.
        training: The protocol to train it by.
        seed: Seeds its weights and the training.
    """

    text: str
    facts: dict[str, object]
    remarks: tuple[str, ...] = ()
    model: nn.Module | None = None
    architecture: Architecture | None = None
    training: Training | None = None
    seed: int = 0

    def ready(
        self,
        source: ImageSource,
        *,
        folder: Path,
        image_size: tuple[int, int],
        runtime: Runtime,
    ) -> nn.Module:
        """Return the model; train it first if need be.

        Args:
            source: The set to train it on.
            folder: Where it is kept, and found again when a killed run goes on.
            image_size: Height and width of the images.
            runtime: Where and how to run.

        Returns:
            The model.
        """
        if self.model is not None:
            return self.model
        assert self.architecture is not None  # one of the two is there
        assert self.training is not None
        weights = folder / "model.safetensors"
        if not (weights.exists() and weights.with_suffix(".json").exists()):
            data, _ = read_whole(source, image_size=image_size, report=runtime.progress)
            trained = train_classifier(
                self.architecture.build(self.seed),
                data=data,
                settings=self.training,
                seed=self.seed,
                runtime=runtime,
            )
            save_model(trained, weights, architecture=self.architecture)
            forget_training(runtime.work_dir)
        return load_model(str(weights))  # a run that goes on sees the same bytes


def given_victim(
    spec: str, model: nn.Module, source: ImageSource, *, seed: int
) -> Victim:
    """Return a victim that the user gave.

    Args:
        spec: Where it is from.
        model: The model.
        source: The set.
        seed: The seed given.

    Returns:
        The victim.
    """
    remark = check_classes(model, source)
    return Victim(
        text=spec,
        facts={"model": fingerprint(model)},
        remarks=(remark,) if remark else (),
        model=model,
        seed=seed,
    )


def victim_to_train(
    architecture: Architecture, *, training: Training, folder: Path, seed: int
) -> Victim:
    """Return a victim that is to be trained on the set.

    Args:
        architecture: What it is.
        training: How it is trained.
        folder: Where it will be.
        seed: Seeds its weights and the training.

    Returns:
        The victim.
    """
    return Victim(
        text=(
            f"{architecture.name} of width {architecture.width}, trained on the set "
            f"for {training.epochs} epochs, kept in {folder / 'model.safetensors'}"
        ),
        facts={"architecture": asdict(architecture), "training": asdict(training)},
        architecture=architecture,
        training=training,
        seed=seed,
    )


def check_labels_to_train(source: ImageSource) -> None:
    """Check that a set has labels of at least two classes.

    Args:
        source: The set.

    Raises:
        InputError: If it has not.
    """
    num_classes = len(source.class_names)
    if num_classes == 0:
        raise InputError(
            f"expected labels to train a model on, got none in {source.spec!r}; sort "
            "the images into one folder per class, name the --label-column, or give "
            "a trained model as --model"
        )
    if num_classes == 1:
        raise InputError(
            "expected labels of at least 2 classes to train a model on, got one class "
            f"({source.class_names[0]!r}); give images of others, or a trained model "
            "as --model"
        )
