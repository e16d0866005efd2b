"""What a guard is asked to do: the rule that the user can change, and its tools."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from bezoar.detect import CognitiveDistillation, EncoderInversion, NeighborOutlier
from bezoar.engine import Detector, Purifier
from bezoar.errors import InputError
from bezoar.models import Architecture
from bezoar.purify import ShortcutSqueezing
from bezoar.repair import UBT, Unlearning
from bezoar.train import Training

STEPS: dict[str, str] = {
    "verify": "read every file: which are unreadable, which are there twice",
    "screen": "look for noise that makes images unlearnable",
    "learn": "train a classifier on the set, where none is given",
    "detect": "score every image, and judge",
    "diagnose": "look for a trigger in an encoder that was given",
    "decide": "say what becomes of each image, by the rule",
    "purify": "take noise out of the images that the rule says so of",
    "write": "write the set without the poison, in the format that came in",
    "train": "train a classifier anew, on the clean set",
    "repair": "make the given model forget what was found",
    "measure": "measure accuracy, and how often a trigger works",
    "report": "write the page",
}
"""The steps of a guard in their order, and what each does."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The rule by which `guard` decides what becomes of an image.

    The first that applies counts: a person's decision, then "drop", then "purify".
    Where nothing is to be dropped or purified, no set is written: the one given is
    the clean one.

    Attributes:
        flagged: What becomes of images that the detection flags.
        protected: What becomes of all images where the set is made unlearnable.
        unreadable: What becomes of files that cannot be read as images.
        exact_duplicates: Of files that are there byte for byte before; "drop" keeps
            the first of them.
        near_duplicates: Of images that show the same as one before.
        screen_images: Images to look at for what makes a set unlearnable; a set with
            more is sampled.
        relearnt_rate: Share of the dropped images from which on a network that was
            trained anew is said to have learnt their labels again, without having
            seen them; it is repaired then.
    """

    flagged: Literal["drop", "purify", "keep"] = "drop"
    protected: Literal["purify", "keep"] = "purify"
    unreadable: Literal["drop", "keep"] = "drop"
    exact_duplicates: Literal["keep", "drop"] = "keep"
    near_duplicates: Literal["keep", "drop"] = "keep"
    screen_images: int = 2000
    relearnt_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.screen_images < 1 or not 0 < self.relearnt_rate <= 1:
            raise InputError(
                "expected screen_images of at least 1 and relearnt_rate above 0 and up "
                f"to 1, got {self.screen_images} and {self.relearnt_rate}; correct them"
            )


_MASKS = 24  # of the most suspicious images, for the page


def _final_training() -> Training:
    return Training(augment="crop_flip")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The methods that a guard works with.

    Attributes:
        detector: Finds the poison; None takes Cognitive Distillation, and for an
            encoder local density among its features.
        diagnosis: Looks for a trigger in an encoder.
        purifier: Takes noise out of images.
        repair: Makes a classifier forget what was flagged; or, for an encoder, one of
            the repairs that need no detection, such as ``MIMIC()``.
        pair_repair: Finds the poison in pairs of images and captions, and makes an
            image-text model forget it.
        training: How the classifier is trained that the detection looks at: without
            augmentation, for detectors read what a network memorised.
        final_training: How a classifier is trained anew on the clean set.
        architecture: Kind of network that is trained; classes and size are those of
            the set. None takes the small convnet.
    """

    detector: Detector | None = None
    diagnosis: EncoderInversion = field(default_factory=EncoderInversion)
    purifier: Purifier = field(default_factory=ShortcutSqueezing)
    repair: Any = field(default_factory=Unlearning)
    pair_repair: Any = field(default_factory=UBT)
    training: Training = field(default_factory=Training)
    final_training: Training = field(default_factory=_final_training)
    architecture: Architecture | None = None

    def detector_for(self, *, is_encoder: bool) -> Detector:
        """Return the detector to use.

        Args:
            is_encoder: Whether it is to look at an encoder.

        Returns:
            The one that was given, or the default.
        """
        if self.detector is not None:
            return self.detector
        if is_encoder:
            return NeighborOutlier()
        return CognitiveDistillation(num_masks=_MASKS)


def check_steps(names: Collection[str]) -> frozenset[str]:
    """Check the names of steps.

    Args:
        names: Steps that are not to be done.

    Returns:
        The same names.

    Raises:
        InputError: If there is no such step.

    Example:
        >>> sorted(check_steps(["write", "purify"]))
        ['purify', 'write']
    """
    unknown = sorted(set(names) - STEPS.keys())
    if unknown:
        raise InputError(
            f"expected steps ({', '.join(STEPS)}), got {unknown[0]!r}; correct the name"
        )
    return frozenset(names)


RULE, TOOLS = Guard(), Tools()
