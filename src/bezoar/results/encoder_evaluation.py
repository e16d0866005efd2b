"""How an encoder does downstream, on clean and on triggered images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncoderEvaluation:
    """How an encoder does on one downstream task, with a head of its own.

    Attributes:
        encoder: The name it was given.
        task: The task's name.
        clean_accuracy: Share of clean test images classified right.
        num_clean: Clean test images counted.
        target_class: The class that the attack leads to; None without an attack.
        attack_success_rate: Share of triggered images, not of the target class, that
            are classified as it; None without an attack.
        attack_success_rate_all: The same with the images of the target class, as the
            published tables count; to be read beside those alone.
        num_triggered: Triggered images that are not of the target class.
        false_target_rate: Share of the same images, without the trigger, that are
            classified as the target.
        floor: ``attack_success_rate`` of a clean encoder with its own head; the
            number to compare with, for it is not 0. None where there is none.
        knowledge_recovery: How much of what the teacher has beyond an untrained
            encoder this one has: 0 as untrained, 1 as the teacher; None where one of
            them is missing or they are equally good.
    """

    encoder: str
    task: str
    clean_accuracy: float
    num_clean: int
    target_class: int | None = None
    attack_success_rate: float | None = None
    attack_success_rate_all: float | None = None
    num_triggered: int = 0
    false_target_rate: float | None = None
    floor: float | None = None
    knowledge_recovery: float | None = None
