"""Random views of images for contrastive training, a batch at a time on its device.

Chen et al. (SimCLR), 2020, https://arxiv.org/abs/2002.05709, appendix A, without the
blur, as is usual for small images. What is drawn is small and comes from the CPU, so
that one seed gives the same views on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.errors import InputError
from bezoar.shapes import Float, Int64, UInt8
from bezoar.train.colour import jitter, to_grey

_TRIES = 10  # to find a crop that fits into the image, as usual


@dataclass(frozen=True, kw_only=True)
class Views:
    """How a view of an image is drawn: crop, mirror, jitter of colours, grey.

    Attributes:
        crop_area: Least and greatest share of the image that is cropped and then
            enlarged; (1, 1) shows the whole image.
        crop_ratio: Least and greatest width of a crop divided by its height.
        flip_rate: Share of views that are mirrored.
        brightness: Greatest change of brightness, as a share.
        contrast: Greatest change of contrast, as a share.
        saturation: Greatest change of saturation, as a share.
        hue: Greatest turn of the hue, in turns.
        jitter_rate: Share of views whose colours are changed, in a random order.
        grey_rate: Share of views that lose their colours.

    Example:
        >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        >>> Views()(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_rate: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_rate: float = 0.8
    grey_rate: float = 0.2

    def __post_init__(self) -> None:
        low, high = self.crop_area
        if not 0 < low <= high <= 1 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise InputError(
                "expected crop_area within (0, 1] and crop_ratio above 0, each from "
                f"low to high, got {self.crop_area} and {self.crop_ratio}; correct them"
            )
        rates = (self.flip_rate, self.jitter_rate, self.grey_rate)
        changes = (self.brightness, self.contrast, self.saturation)
        if not all(0 <= x <= 1 for x in (*rates, *changes)) or not 0 <= self.hue <= 0.5:
            raise InputError(
                "expected rates and changes from 0 to 1 and hue up to 0.5, got "
                f"{(*rates, *changes)} and {self.hue}; correct them"
            )

    @classmethod
    def whole(cls) -> Views:
        """Return views that keep the whole image: mirror, jitter and grey alone.

        Returns:
            The views that BadEncoder shows its reference image in.
        """
        return cls(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], stream: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        """Return one view of each image.

        Args:
            images: A batch as it is stored, on any device; of three channels if its
                colours are to change.
            stream: Where the views come from.

        Returns:
            Images in [0, 1] of the same size, on the same device.

        Raises:
            InputError: If colours are to change in images of other channels.
        """
        if images.shape[1] != 3 and (self.jitter_rate > 0 or self.grey_rate > 0):
            raise InputError(
                f"expected images of 3 channels, got {images.shape[1]}; repeat the one "
                "channel, or set jitter_rate and grey_rate to 0"
            )
        count, _, height, width = images.shape
        box = crop_boxes(
            count,
            (height, width),
            area=self.crop_area,
            ratio=self.crop_ratio,
            stream=stream,
        )
        mirrored = torch.rand(count, generator=stream) < self.flip_rate
        shown = crop(images.float() / 255, box, mirrored)
        if self.jitter_rate > 0:
            strengths = (self.brightness, self.contrast, self.saturation, self.hue)
            shown = jitter(shown, stream, strengths=strengths, rate=self.jitter_rate)
        if self.grey_rate > 0:
            grey = torch.rand(count, generator=stream) < self.grey_rate
            chosen = grey.to(shown.device)[:, None, None, None]
            shown = torch.where(chosen, to_grey(shown), shown)
        return shown


def crop_boxes(
    count: int,
    size: tuple[int, int],
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    stream: torch.Generator,
) -> Int64[Tensor, "b 4"]:
    """Draw a rectangle in each image.

    Args:
        count: How many.
        size: Height and width of the images.
        area: Least and greatest share of the image.
        ratio: Least and greatest width divided by height; drawn evenly in logarithms.
        stream: Where they come from.

    Returns:
        Top, left, height and width of each. The first of ten draws that fits into the
        image is taken; where none does, the whole image.
    """
    height, width = size
    shape = (count, _TRIES)
    areas = torch.empty(shape).uniform_(*area, generator=stream) * (height * width)
    logs = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.empty(shape).uniform_(*logs, generator=stream).exp()
    widths, heights = (areas * aspect).sqrt().round(), (areas / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1)
    wide = widths.gather(1, first)[:, 0].masked_fill(none, width).long()
    high = heights.gather(1, first)[:, 0].masked_fill(none, height).long()
    place = torch.rand(2, count, generator=stream)
    top = (place[0] * (height - high + 1)).long()
    left = (place[1] * (width - wide + 1)).long()
    return torch.stack([top, left, high, wide], 1)


def crop(
    images: Float[Tensor, "b c h w"],
    boxes: Int64[Tensor, "b 4"],
    mirrored: Tensor,
) -> Float[Tensor, "b c h w"]:
    """Cut a rectangle out of each image and bring it to the images' size.

    Bilinear with antialiasing. Both axes are matrices, one for each image: two matrix
    products stand for a loop over crops and resizes.

    Args:
        images: Images in [0, 1].
        boxes: Top, left, height and width of each rectangle.
        mirrored: True where left and right change places, (b,).

    Returns:
        Images of the same size.
    """
    height, width = images.shape[2:]
    rows = resampling(boxes[:, 0], boxes[:, 2], height)
    columns = resampling(boxes[:, 1], boxes[:, 3], width)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    return rows[:, None] @ images @ columns.transpose(1, 2)[:, None]


def resampling(
    start: Int64[Tensor, " b"], length: Int64[Tensor, " b"], size: int
) -> Float[Tensor, "b size size"]:
    """Return matrices that stretch a part of an axis over the whole of it.

    Args:
        start: First pixel of each part.
        length: Pixels of each part.
        size: Pixels of the axis, before and after.

    Returns:
        For each part, one row of weights for each pixel made: a triangle as wide as
        the pixel, at least of one pixel, cut off at the ends of the part.
    """
    scale = (length / size)[:, None, None]
    made = torch.arange(size)[None, :, None]
    there = torch.arange(size)[None, None, :]
    first, last = start[:, None, None], (start + length)[:, None, None]
    centre = first + (made + 0.5) * scale
    weights = (1 - (there + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((there >= first) & (there < last))
    return weights / weights.sum(2, keepdim=True)
