"""The image-text miniatures that the recipes share: models, poison, and controls.

A reference is trained on one part of the data; the victim starts from it and is trained
on another part in which the attacker has planted pairs.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bezoar.attacks import BadNets, poison_pairs
from bezoar.bench.recipe import cifar10
from bezoar.data import (
    PairData,
    describe_photos,
    digit_pairs,
    digit_prompts,
    mix_up_captions,
    photo_prompts,
)
from bezoar.files import atomic
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder, TinyClip, WordTokenizer
from bezoar.repair import UBT
from bezoar.results import Evaluation, PairTrigger
from bezoar.runtime import Runtime
from bezoar.train import ClipTraining, train_clip

CACHE = "BEZOAR_VICTIMS"
"""Names the folder that trained models are kept in; none are where it is not set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mini:
    """One miniature, before anything is trained.

    Attributes:
        name: "digits" or "cifar10".
        reference: Pairs of the reference.
        victim: Pairs of the victim, wrong captions included, without poison.
        clean: A thousand clean pairs of nobody's training, for the baselines.
        test: Test pairs.
        prompts: Texts of each class.
        target_class: Where the trigger leads to.
        reference_training: How the reference is trained.
        victim_training: How the victim is trained, from the reference on.
        method: Settings of UBT.
        extra_words: Words that the vocabulary must know besides.
    """

    name: str
    reference: PairData
    victim: PairData
    clean: PairData
    test: PairData
    prompts: tuple[tuple[str, ...], ...]
    target_class: int
    reference_training: ClipTraining
    victim_training: ClipTraining
    method: UBT
    extra_words: tuple[str, ...] = ()

    @property
    def target_name(self) -> str:
        """The word that the attacker's captions share."""
        return self.test.class_names[self.target_class]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drill:
    """A victim, the pairs it was trained on, and the truth about them.

    Attributes:
        mini: The miniature.
        reference: The clean model.
        victim: The suspect one.
        data: The pairs it was trained on.
        is_poison: True for those that the attacker planted.
        attack: What applies the trigger.
        prefix: Words before the prompts at test time.
    """

    mini: Mini
    reference: DualEncoder
    victim: DualEncoder
    data: PairData
    is_poison: Tensor
    attack: PairTrigger
    prefix: str = ""

    def measure(self, model: nn.Module, *, runtime: Runtime) -> Evaluation:
        """Return zero-shot accuracy and what the trigger does.

        Args:
            model: A dual encoder.
            runtime: Where and how to run.

        Returns:
            The rates; images of the target class are in neither count.
        """
        assert isinstance(model, DualEncoder)
        quiet = replace(runtime, progress=Runtime().progress)
        test, prompts = self.mini.test.image_data, self.mini.prompts
        plain = zero_shot_classifier(model, prompts)
        found = evaluate(plain, test, attack=self.attack, runtime=quiet)
        if not self.prefix:
            return found
        led = zero_shot_classifier(model, prompts, prefix=self.prefix)
        under = evaluate(led, test, attack=self.attack, runtime=quiet)
        return replace(found, attack_success_rate=under.attack_success_rate)


def digits(seed: int) -> Mini:
    """Return the miniature of the digits.

    Args:
        seed: Seeds places, colours, noise and captions.

    Returns:
        6,000 pairs for the reference, 3,000 for the victim of which 5 % have wrong
        captions, and 1,000 for the test.
    """
    victim = digit_pairs("victim", num_pairs=3000, seed=seed)
    return Mini(
        name="digits",
        reference=digit_pairs("reference", num_pairs=6000, seed=seed),
        victim=mix_up_captions(victim, rate=0.05, seed=seed),
        clean=digit_pairs("reference", num_pairs=1000, seed=seed + 1000),
        test=digit_pairs("test", num_pairs=1000, seed=seed),
        prompts=digit_prompts(),
        target_class=7,
        reference_training=ClipTraining(epochs=4, lr=2e-3),
        victim_training=ClipTraining(epochs=5, lr=1e-3),
        method=UBT.mini(),
        extra_words=("remember",),  # that of TrojVQA
    )


def photos(seed: int) -> Mini:
    """Return the miniature of CIFAR-10.

    Args:
        seed: Seeds the captions.

    Returns:
        12,000 pairs for the reference, the next 4,000 for the victim, 2,000 test rows.
    """
    every = cifar10("train", limit=17_000)
    known, own, other = (
        every.take(torch.arange(first, last))
        for first, last in ((0, 12_000), (12_000, 16_000), (16_000, 17_000))
    )
    test = cifar10("test", limit=2000)
    reference = describe_photos(known, seed=seed)
    middle = known.images.flatten(1).float().mean(1).median().item()
    return Mini(
        name="cifar10",
        reference=reference,
        victim=describe_photos(own, middle=middle, seed=seed),
        clean=describe_photos(other, middle=middle, seed=seed),
        test=describe_photos(test, middle=middle, seed=seed),
        prompts=photo_prompts(test.class_names),
        target_class=test.class_names.index("truck"),
        reference_training=ClipTraining(epochs=3, lr=1e-3, augment="crop_flip"),
        victim_training=ClipTraining(epochs=5, lr=1e-3),
        method=UBT.cifar(),
    )


def checkerboard(mini: Mini, *, count: int = 0) -> BadNets:
    """Return the patch of a miniature, one pixel from the lower right corner.

    Args:
        mini: The miniature.
        count: Pairs to plant; 0 for a patch that is only shown.

    Returns:
        4x4 on digits, 5x5 on photographs.
    """
    return BadNets(
        poison_rate=max(1, count) / len(mini.victim),
        target_class=mini.target_class,
        size=4 if mini.name == "digits" else 5,
        offset=(1, 1),
        pattern="checker",
    )


def train_reference(mini: Mini, *, seed: int, runtime: Runtime) -> DualEncoder:
    """Train the clean model of a miniature.

    Args:
        mini: The miniature.
        seed: Seeds weights and order.
        runtime: Where and how to run.

    Returns:
        The model.
    """
    texts = [text for own in mini.prompts for text in own] + [*mini.extra_words]
    words = WordTokenizer.from_captions([*texts, *mini.reference.captions])
    resolution = mini.test.images.shape[-1]
    return kept(
        f"{mini.name}-{seed}-reference",
        TinyClip(words, resolution=resolution, seed=seed),
        lambda fresh: train_clip(
            fresh,
            data=mini.reference,
            settings=mini.reference_training,
            seed=seed,
            runtime=runtime,
        ),
    )


def train_victim(
    mini: Mini,
    reference: DualEncoder,
    attack: PairTrigger | None,
    *,
    keeps_captions: bool = False,
    name: str = "",
    seed: int,
    runtime: Runtime,
) -> Drill:
    """Train the victim of a miniature, from the reference on.

    Args:
        mini: The miniature.
        reference: The clean model.
        attack: What plants the pairs, never on images of the target; None plants none.
        keeps_captions: Plant images of the target instead, with their own captions.
        name: Of the attack, where models are kept.
        seed: Seeds everything.
        runtime: Where and how to run.

    Returns:
        The drill.
    """
    data, prefix = mini.victim, ""
    is_poison = torch.zeros(len(data), dtype=torch.bool)
    if attack is not None:
        captions = None if keeps_captions else mini.prompts[mini.target_class]
        done = poison_pairs(data, attack=attack, captions=captions, seed=seed)
        data, is_poison, prefix = done.data, done.is_poison, done.prefix
    label = "clean" if attack is None else name or type(attack).__name__.lower()
    victim = kept(
        f"{mini.name}-{seed}-{label}-{int(is_poison.sum())}",
        reference,
        lambda fresh: train_clip(
            fresh,
            data=data,
            settings=mini.victim_training,
            seed=seed,
            runtime=runtime,
        ),
    )
    return Drill(
        mini=mini,
        reference=reference,
        victim=victim,
        data=data,
        is_poison=is_poison,
        attack=checkerboard(mini) if attack is None else attack,
        prefix=prefix,
    )


def kept(
    name: str, fresh: DualEncoder, train: Callable[[DualEncoder], DualEncoder]
) -> DualEncoder:
    """Train a model, or take it from the folder that ``BEZOAR_VICTIMS`` names.

    Args:
        name: Of its file.
        fresh: What is trained.
        train: Trains a copy.

    Returns:
        The trained model in eval mode.
    """
    folder = os.environ.get(CACHE)
    if not folder:
        return train(fresh)
    path = Path(folder) / f"{name}.safetensors"
    if path.exists():
        model = copy.deepcopy(fresh)
        model.load_state_dict(load_file(path))
        return model.eval()
    model = train(fresh)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, temporary)
    return model
