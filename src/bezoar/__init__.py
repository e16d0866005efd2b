"""Finds poison in image data, takes it out, and makes models forget it.

Public names load on first use, so that importing the package costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bezoar.data import ImageData
    from bezoar.models import Normalized
    from bezoar.results import Detection, Evaluation, Poisoned, Provenance, Verdict
    from bezoar.runtime import Progress, Runtime
else:  # hidden from mypy, or every misspelt name would pass as an attribute
    _HOMES = {
        "Detection": "bezoar.results",
        "Evaluation": "bezoar.results",
        "ImageData": "bezoar.data",
        "Normalized": "bezoar.models",
        "Poisoned": "bezoar.results",
        "Progress": "bezoar.runtime",
        "Provenance": "bezoar.results",
        "Runtime": "bezoar.runtime",
        "Verdict": "bezoar.results",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'bezoar' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return __all__


__all__ = [
    "Detection",
    "Evaluation",
    "ImageData",
    "Normalized",
    "Poisoned",
    "Progress",
    "Provenance",
    "Runtime",
    "Verdict",
]
