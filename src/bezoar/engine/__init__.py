"""Per-image methods over sources of any size, block by block, resumable."""

from bezoar.engine.detect import BlockDetector, detect_source
from bezoar.engine.local import BlockSource, collect, run_blocks, sample_source

__all__ = [
    "BlockDetector",
    "BlockSource",
    "collect",
    "detect_source",
    "run_blocks",
    "sample_source",
]
