"""Make a model forget a backdoor."""

from bezoar.repair.bcu import BCU
from bezoar.repair.clean_clip import CleanCLIP
from bezoar.repair.distillation import Distillation
from bezoar.repair.encoder_fine_tuning import EncoderFineTuning
from bezoar.repair.lipschitz_pruning import LipschitzPruning
from bezoar.repair.mimic import MIMIC
from bezoar.repair.pair_fine_tuning import PairFineTuning
from bezoar.repair.retraining import Retraining
from bezoar.repair.ubt import UBT
from bezoar.repair.unlearning import Unlearning

__all__ = [
    "BCU",
    "MIMIC",
    "UBT",
    "CleanCLIP",
    "Distillation",
    "EncoderFineTuning",
    "LipschitzPruning",
    "PairFineTuning",
    "Retraining",
    "Unlearning",
]
