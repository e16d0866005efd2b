"""Make a model forget a backdoor."""

from bezoar.repair.retraining import Retraining
from bezoar.repair.ubt import UBT
from bezoar.repair.unlearning import Unlearning

__all__ = ["UBT", "Retraining", "Unlearning"]
