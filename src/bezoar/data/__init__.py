"""Images and labels: in memory, and in sets of any size and format."""

from bezoar.data.captions import (
    describe_photos,
    digit_pairs,
    digit_prompts,
    mix_up_captions,
    photo_prompts,
)
from bezoar.data.decode import Unreadable, decode_image
from bezoar.data.images import (
    UNLABELLED,
    ImageData,
    content_keys,
    join,
    to_uint8,
)
from bezoar.data.pair_source import PairBlock, PairSource, open_pairs
from bezoar.data.pairs import PairData, join_pairs
from bezoar.data.samples import (
    digit_images,
    noise_images,
    shape_pairs,
    shape_prompts,
)
from bezoar.data.source import Block, Format, ImageSource, open_source
from bezoar.data.write import write_source
from bezoar.data.write_images import write_images
from bezoar.data.write_pairs import write_pairs

__all__ = [
    "UNLABELLED",
    "Block",
    "Format",
    "ImageData",
    "ImageSource",
    "PairBlock",
    "PairData",
    "PairSource",
    "Unreadable",
    "content_keys",
    "decode_image",
    "describe_photos",
    "digit_images",
    "digit_pairs",
    "digit_prompts",
    "join",
    "join_pairs",
    "mix_up_captions",
    "noise_images",
    "open_pairs",
    "open_source",
    "photo_prompts",
    "shape_pairs",
    "shape_prompts",
    "to_uint8",
    "write_images",
    "write_pairs",
    "write_source",
]
