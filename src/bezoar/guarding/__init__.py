"""The chain: verify, screen, detect, decide, purify, write, train or repair, report."""

from bezoar.guarding.chain import guard
from bezoar.guarding.decide import Plan, decide
from bezoar.guarding.ledger import Ledger, Step
from bezoar.guarding.outcome import Guarded
from bezoar.guarding.settings import STEPS, Guard, Tools
from bezoar.guarding.verify import Verified, verify

__all__ = [
    "STEPS",
    "Guard",
    "Guarded",
    "Ledger",
    "Plan",
    "Step",
    "Tools",
    "Verified",
    "decide",
    "guard",
    "verify",
]
