"""Per-image methods over sources of any size, block by block, resumable."""

from bezoar.engine.detect import BlockDetector, detect_source
from bezoar.engine.dispatch import (
    Detector,
    FeatureDetector,
    SetDetector,
    detect_with,
    uses_model,
)
from bezoar.engine.features import feature_pass
from bezoar.engine.local import BlockSource, collect, run_blocks, sample_source
from bezoar.engine.masks import masked_worst
from bezoar.engine.pairs import PairBlockDetector, detect_pair_source
from bezoar.engine.purify import (
    RANKING,
    BlockPurifier,
    PurifiedSource,
    Purifier,
    RankedPurifier,
    purify_source,
)
from bezoar.engine.ray import RayEngine
from bezoar.engine.run_time_filter import Checked, RunTimeFilter
from bezoar.engine.sets import check_classes, fingerprint_of, image_size_for
from bezoar.engine.together import detect_together

__all__ = [
    "RANKING",
    "BlockDetector",
    "BlockPurifier",
    "BlockSource",
    "Checked",
    "Detector",
    "FeatureDetector",
    "PairBlockDetector",
    "PurifiedSource",
    "Purifier",
    "RankedPurifier",
    "RayEngine",
    "RunTimeFilter",
    "SetDetector",
    "check_classes",
    "collect",
    "detect_pair_source",
    "detect_source",
    "detect_together",
    "detect_with",
    "feature_pass",
    "fingerprint_of",
    "image_size_for",
    "masked_worst",
    "purify_source",
    "run_blocks",
    "sample_source",
    "uses_model",
]
