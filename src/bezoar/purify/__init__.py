"""Take poison out of images."""

from bezoar.purify.chain import Chain
from bezoar.purify.dvae import DVAE
from bezoar.purify.energy_filter import EnergyFilter
from bezoar.purify.pure_ddpm import PureDDPM
from bezoar.purify.pure_ebm import PureEBM
from bezoar.purify.screening import screen_unlearnable
from bezoar.purify.shortcut_squeezing import ShortcutSqueezing
from bezoar.purify.step_curve import StepCurve, calibrate_steps

__all__ = [
    "DVAE",
    "Chain",
    "EnergyFilter",
    "PureDDPM",
    "PureEBM",
    "ShortcutSqueezing",
    "StepCurve",
    "calibrate_steps",
    "screen_unlearnable",
]
