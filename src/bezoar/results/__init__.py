"""What a method hands back. Results that hold tensors compare by identity."""

from bezoar.results.detection import ClassEvidence, Detection, Scores, Status, Verdict
from bezoar.results.diagnosis import Diagnosis, DiagnosisStatus
from bezoar.results.encoder_evaluation import EncoderEvaluation
from bezoar.results.evaluation import Evaluation
from bezoar.results.features import Features
from bezoar.results.panel import Panel
from bezoar.results.poisoned import Poisoned
from bezoar.results.poisoned_pairs import PairTrigger, PoisonedPairs
from bezoar.results.provenance import Provenance
from bezoar.results.purification import Purification, PurificationReport
from bezoar.results.repair import Repair, RepairStatus
from bezoar.results.screening import Screening, ScreeningStatus

__all__ = [
    "ClassEvidence",
    "Detection",
    "Diagnosis",
    "DiagnosisStatus",
    "EncoderEvaluation",
    "Evaluation",
    "Features",
    "PairTrigger",
    "Panel",
    "Poisoned",
    "PoisonedPairs",
    "Provenance",
    "Purification",
    "PurificationReport",
    "Repair",
    "RepairStatus",
    "Scores",
    "Screening",
    "ScreeningStatus",
    "Status",
    "Verdict",
]
