"""Attacks that make images unlearnable, by name."""

from __future__ import annotations

from bezoar.attacks.ar import AR
from bezoar.attacks.class_noise import ClassNoise
from bezoar.attacks.cuda_filter import CUDAFilter
from bezoar.attacks.em import EM
from bezoar.attacks.lsp import LSP
from bezoar.attacks.ops import OPS
from bezoar.attacks.pil import PIL
from bezoar.attacks.rem import REM
from bezoar.attacks.tap import TAP
from bezoar.attacks.tue import TUE
from bezoar.attacks.unlearnable import Unlearnable

UNLEARNABLE: dict[str, type[Unlearnable]] = {
    "lsp": LSP,
    "ops": OPS,
    "ar": AR,
    "pil": PIL,
    "em": EM,
    "tue": TUE,
    "tap": TAP,
    "rem": REM,
    "class-noise": ClassNoise,
    "cuda-filter": CUDAFilter,
}
"""A manifest and the command line use it; these attacks have no trigger."""
