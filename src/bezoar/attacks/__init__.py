"""Poison data to drill on."""

from bezoar.attacks.ar import AR
from bezoar.attacks.badclip import BadClip
from bezoar.attacks.badencoder import BadEncoder, trigger_cosine
from bezoar.attacks.badnets import BadNets
from bezoar.attacks.blend import Blended
from bezoar.attacks.bullseye_polytope import BullseyePolytope
from bezoar.attacks.class_noise import ClassNoise
from bezoar.attacks.ctrl import CTRL
from bezoar.attacks.cuda_filter import CUDAFilter
from bezoar.attacks.em import EM
from bezoar.attacks.fresh_noise import FreshNoise
from bezoar.attacks.gradient_matching import GradientMatching
from bezoar.attacks.label_consistent import LabelConsistent
from bezoar.attacks.lsp import LSP
from bezoar.attacks.manifest import (
    ATTACKS,
    Attack,
    Manifest,
    PoisonedImage,
    attack_from_manifest,
    fingerprint,
    read_manifest,
    write_manifest,
)
from bezoar.attacks.narcissus import FaintPattern, Narcissus
from bezoar.attacks.noise_patch import NoisePatch
from bezoar.attacks.ops import OPS
from bezoar.attacks.pairs import AttackCheck, check_attack_on, poison_pairs
from bezoar.attacks.pil import PIL
from bezoar.attacks.rem import REM
from bezoar.attacks.sig import SIG
from bezoar.attacks.ssl_backdoor import SSLBackdoor
from bezoar.attacks.stamped_patch import StampedPatch
from bezoar.attacks.tap import TAP
from bezoar.attacks.trojan import Trojan
from bezoar.attacks.trojvqa import TrojVQA
from bezoar.attacks.tue import TUE
from bezoar.attacks.unlearnables import UNLEARNABLE
from bezoar.attacks.wanet import WaNet

__all__ = [
    "AR",
    "ATTACKS",
    "CTRL",
    "EM",
    "LSP",
    "OPS",
    "PIL",
    "REM",
    "SIG",
    "TAP",
    "TUE",
    "UNLEARNABLE",
    "Attack",
    "AttackCheck",
    "BadClip",
    "BadEncoder",
    "BadNets",
    "Blended",
    "BullseyePolytope",
    "CUDAFilter",
    "ClassNoise",
    "FaintPattern",
    "FreshNoise",
    "GradientMatching",
    "LabelConsistent",
    "Manifest",
    "Narcissus",
    "NoisePatch",
    "PoisonedImage",
    "SSLBackdoor",
    "StampedPatch",
    "TrojVQA",
    "Trojan",
    "WaNet",
    "attack_from_manifest",
    "check_attack_on",
    "fingerprint",
    "poison_pairs",
    "read_manifest",
    "trigger_cosine",
    "write_manifest",
]
