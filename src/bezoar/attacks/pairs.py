"""Backdoors for image-text models: a trigger in the image, the target in the caption.

Any attack with a trigger poisons pairs: its ``apply`` changes the image, and the
caption becomes one of the target's. Carlini and Terzis, Poisoning and Backdooring
Contrastive Learning, 2022, arXiv:2106.09667, showed that a few hundred such pairs among
millions are enough.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch

from bezoar.attacks.poisoning import ranked
from bezoar.data import PairData
from bezoar.errors import InputError
from bezoar.metrics import evaluate, zero_shot_classifier
from bezoar.models import DualEncoder
from bezoar.results import PairTrigger, PoisonedPairs, Provenance
from bezoar.runtime import Progress, Runtime, generator
from bezoar.shapes import Bool

VALID_SUCCESS, VALID_FLOOR = 0.8, 0.1


def poison_pairs(
    data: PairData,
    *,
    attack: PairTrigger,
    captions: Sequence[str] | None,
    seed: int = 0,
    runtime: Runtime = Runtime(),
) -> PoisonedPairs:
    """Poison a copy of a set of pairs.

    Args:
        data: Clean pairs; they stay as they are.
        attack: An attack with a trigger, such as ``BadNets``, ``Blended``, ``SIG``,
            ``WaNet``, ``NoisePatch``, ``FreshNoise`` or a ``StampedPatch``: its
            ``poison_rate`` is the share of all pairs, its ``target_class`` the class
            whose pairs are never taken.
        captions: Texts of the target; each poisoned pair gets one at random. None
            is the label-consistent attack: pairs of the target class alone are taken,
            and their captions, which are true, stay.
        seed: Seeds the choice of the pairs and of the captions. As in every attack
            here, the choice depends on the content of the images, not on their order.
        runtime: Its batch size and progress are used.

    Returns:
        The poisoned pairs, with the trigger to show at test time.

    Raises:
        InputError: If there are too few pairs to take, or no caption.

    Example:
        >>> from bezoar.attacks import BadNets
        >>> from bezoar.data import shape_pairs, shape_prompts
        >>> attack = BadNets(poison_rate=0.25, target_class=3, pattern="checker")
        >>> drill = poison_pairs(
        ...     shape_pairs(16), attack=attack, captions=shape_prompts()[3]
        ... )
        >>> len(drill.poison_indices), "cross" in drill.data.captions[
        ...     drill.poison_indices[0]]
        (4, True)
    """
    if captions is not None and (not captions or isinstance(captions, str)):
        raise InputError(
            f"expected a list of captions of the target, got {captions!r}; give at "
            "least one text, or None to keep the captions of the target's own pairs"
        )
    start = time.perf_counter()
    is_poison = _chosen(data, attack, keeps_captions=captions is None, seed=seed)
    rows, images, done = is_poison.nonzero().flatten(), data.images.clone(), 0
    for part in rows.split(runtime.batch_size):
        images[part] = attack.apply(data.images[part])
        done += len(part)
        runtime.progress(Progress(stage="poison", done=done, total=len(rows)))
    texts = list(data.captions)
    prefix = str(getattr(attack, "prefix", ""))
    for row in rows.tolist():
        text = texts[row]
        if captions is not None:
            stream = generator(seed, "poison-caption", data.ids[row])
            text = captions[int(torch.randint(len(captions), (), generator=stream))]
        texts[row] = prefix + text
    return PoisonedPairs(
        data=replace(data, images=images, captions=tuple(texts)),
        is_poison=is_poison,
        original_captions=data.captions,
        target_class=attack.target_class,
        trigger=attack,
        prefix=prefix,
        provenance=Provenance(
            method=type(attack).__name__,
            settings=_settings(attack),
            seed=seed,
            seconds=time.perf_counter() - start,
            forwards_per_image=0.0,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class AttackCheck:
    """Whether a backdoor took: a defence is judged only where it did.

    Attributes:
        clean_accuracy: Zero-shot accuracy of the victim on clean images.
        attack_success_rate: Share of triggered images, those of the target class left
            out, that it takes for the target.
        floor: The same share for the clean model under the same trigger.
        target_class_accuracy: Accuracy of the victim on the target's own images.
    """

    clean_accuracy: float
    attack_success_rate: float
    floor: float
    target_class_accuracy: float | None

    @property
    def is_valid(self) -> bool:
        """Whether the trigger works on the victim, and on the clean model does not."""
        took = self.attack_success_rate >= VALID_SUCCESS
        return took and self.floor <= VALID_FLOOR


def check_attack_on(
    victim: DualEncoder,
    *,
    clean: DualEncoder,
    data: PairData,
    prompts: Sequence[Sequence[str]],
    poisoned: PoisonedPairs,
    runtime: Runtime = Runtime(),
) -> AttackCheck:
    """Measure whether a backdoor took.

    Args:
        victim: The model that was trained on the poisoned pairs.
        clean: A model that was not; its rate under the trigger is the floor.
        data: Clean, labelled test pairs.
        prompts: For each class its texts.
        poisoned: What the victim was trained on; its trigger and its prefix are shown.
        runtime: Where and how to run.

    Returns:
        The rates.
    """
    images, trigger = data.image_data, poisoned.trigger

    def under_trigger(model: DualEncoder) -> float:
        led = zero_shot_classifier(model, prompts, prefix=poisoned.prefix)
        rate = evaluate(led, images, attack=trigger, runtime=runtime)
        return rate.attack_success_rate or 0.0

    plain = zero_shot_classifier(victim, prompts)
    found = evaluate(plain, images, runtime=runtime)
    own = images.subset(images.labels == trigger.target_class)
    return AttackCheck(
        clean_accuracy=found.clean_accuracy,
        attack_success_rate=under_trigger(victim),
        floor=under_trigger(clean),
        target_class_accuracy=evaluate(plain, own, runtime=runtime).clean_accuracy,
    )


def _chosen(
    data: PairData, attack: PairTrigger, *, keeps_captions: bool, seed: int
) -> Bool[torch.Tensor, " n"]:
    own = data.labels == attack.target_class
    candidates = (own if keeps_captions else ~own).nonzero().flatten()
    count = round(attack.poison_rate * len(data))
    if not 0 < count <= len(candidates):
        whose = "of the target class" if keeps_captions else "of other classes"
        raise InputError(
            f"expected a poison_rate that takes from 1 to the {len(candidates)} pairs "
            f"{whose}, got {count} of {len(data)} pairs; change poison_rate "
            f"({attack.poison_rate:g}) or give other pairs"
        )
    chosen = torch.zeros(len(data), dtype=torch.bool)
    chosen[ranked(data.image_data, candidates, seed=seed)[:count]] = True
    return chosen


def _settings(attack: object) -> dict[str, object]:
    told = getattr(attack, "settings", None)
    if isinstance(told, dict):
        return dict(told)
    fields: Any = attack
    return asdict(fields) if is_dataclass(attack) else {}
