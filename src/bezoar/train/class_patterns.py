"""What somebody added to all images of a class, estimated from the images alone.

The mean of a class holds what was added, but also what its images look like and the
luck of the draw. Three things set them apart. Natural images vary least where they are
finest, and in colour less than in brightness: in units of their own variation a faint
pattern stands out there. What classes look like is smooth in the mean; a pattern that
is to be learnt quickly has edges, between patches or around single pixels. And there
are few of these compared with pixels, or at least strong ones.

So the pattern of a class is the image p that minimises

    1/2 sum over f of (M_f - P_f)^2 / s_f^2 + w sum over neighbours of |p_i - p_j|,

with M and P the cosine transforms of the mean (less that of all images) and of p in
colours that vary independently, s_f^2 the variance of the mean of a natural class of n
different images (by chance, and by what classes look like), and differences of
neighbours taken over all colours together. This is denoising by total variation (Rudin,
Osher and Fatemi, Physica D 1992) with a Gaussian model of natural images for the noise;
the use, and the rest of this page, are our own. It is minimised by alternating
directions (ADMM), and some times again with weights w that fall with the difference
found, so that what is strong is not made smaller (Candes, Wakin and Boyd, 2008).
Where that finds edges nearly everywhere, the pattern is noise,
and few edges are no guide; there the estimate is Wiener's, for a pattern that is as
strong at all frequencies as it is at the fine ones. The mean of a pattern over all
pixels cannot be told from a class's own brightness and colour; it is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bezoar.models.cosine import cosine_transform, inverse_cosine_transform
from bezoar.runtime import generator
from bezoar.shapes import Float, Int64, UInt8

LEAST_IMAGES = 50  # of a class: the means of fewer have edges by chance
_ROOM = 2**21  # values, of images or patterns, that are worked on together
_ALIKE = 0.2  # variance between classes, of that within one, at frequency 1; ~ 1/f^2
_STEP = 0.4  # difference of neighbours that goes free, in deviations of natural ones
_SHARE = 0.55  # of the weight at which noise alone would leave no edge at all
_DRAWS = 8  # of such noise
_DENSE = 0.75  # share of neighbours that differ, from which a pattern is noise
_ROUNDS, _TURNS = 5, 60  # reweightings, and turns of ADMM in each
_FAINT = 0.25 / 255  # root mean square below which there is no pattern
_ROUNDING = 1 / 12 / 255**2  # variance of what rounding to grey levels adds


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassPatterns:
    """What the images of each class have in common and no natural class would have.

    Attributes:
        patterns: One for each class in units of [0, 1], its mean over all pixels 0;
            0 for classes in which none is found (its root mean square is below a
            quarter of a grey level), and for those of fewer than ``LEAST_IMAGES``.
        too_strong: Classes whose pattern had more energy than was allowed, and is 0.
        too_few: Classes that have images and were not looked at: too few, or no other
            class to compare with.
    """

    patterns: Float[Tensor, "k c h w"]
    too_strong: tuple[int, ...]
    too_few: tuple[int, ...]


@torch.inference_mode()
def class_patterns(
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    num_classes: int,
    max_energy: float = math.inf,
) -> ClassPatterns:
    """Estimate what was added to all images of a class.

    Needs natural images, better hundreds than the least of a class, whose things lie
    here and there: where the images of a class are alike by nature (digits, aligned
    faces) their mean has edges too; ``max_energy`` keeps these.

    Args:
        images: Images in whole grey levels.
        labels: Class indices.
        num_classes: Classes that there may be.
        max_energy: Largest mean square of a pattern; beyond it, it counts as what the
            class looks like.

    Returns:
        The patterns, in float32 on the device of the images.

    Example:
        >>> stream = torch.Generator().manual_seed(0)
        >>> images = torch.randint(100, 156, (400, 1, 8, 8), generator=stream)
        >>> labels = torch.arange(400) % 2
        >>> images[labels == 1, :, 2, 5] += 60  # a pixel that is brighter in one class
        >>> found = class_patterns(images.byte(), labels, num_classes=2).patterns
        >>> 255 * (found[1] - found[0])[0, 2, 5]
        tensor(58.2125)
    """
    stats = _Statistics.of(images, labels, num_classes=num_classes)
    found = torch.zeros(num_classes, *images.shape[1:], device=images.device)
    usable = (stats.counts >= LEAST_IMAGES).nonzero().flatten()
    if len(usable) < 2 or min(images.shape[2:]) < 2:  # nothing to compare with
        usable = usable[:0]
    else:
        size = max(1, _ROOM // images[0].numel())
        for rows in usable.split(size):
            found[rows] = _patterns(stats, rows, usable).float()
    energy = found.square().mean((1, 2, 3))
    strong = energy > max_energy
    found[strong | (energy < _FAINT**2)] = 0
    missed = stats.counts > 0
    missed[usable] = False
    return ClassPatterns(
        patterns=found,
        too_strong=tuple(strong.nonzero().flatten().tolist()),
        too_few=tuple(missed.nonzero().flatten().tolist()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Statistics:
    """Means and variation of a set, in cosine transforms and independent colours."""

    counts: Tensor  # [k]
    means: Tensor  # [k, c, h, w]
    variance: Tensor  # [c, h, w], within a class
    to_rgb: Tensor  # [c, c]

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, *, num_classes: int) -> _Statistics:
        channels, height, width = images.shape[1:]
        # Doubles throughout: a pattern is a small difference of large sums.
        shape = channels, channels, height, width
        products = images.new_zeros(shape, dtype=torch.float64)
        # Sums of whole numbers, which do not depend on the order, on any device.
        sums = images.new_zeros(num_classes, *images.shape[1:], dtype=torch.int64)
        size = max(1, _ROOM // images[0].numel())
        for part, classes in zip(images.split(size), labels.split(size), strict=True):
            sums.index_add_(0, classes, part.long())
            found = cosine_transform(part.double() / 255)
            products += torch.einsum("nchw,ndhw->cdhw", found, found)
        counts = labels.bincount(minlength=num_classes).double()
        means = cosine_transform(sums.double() / 255)
        means /= counts.clamp(min=1).view(-1, 1, 1, 1)
        shared = torch.einsum("k,kchw,kdhw->cdhw", counts, means, means)
        free = max(1.0, len(images) - counts.count_nonzero().item())
        within = (products - shared) / free
        # Differences of neighbours, of one direction, in the mean over the image.
        slopes = (within * _laplace(height, width, images.device)).sum((2, 3))
        values, turned = torch.linalg.eigh(slopes / (2 * height * width))
        # No colour is known better than grey levels are rounded.
        deviations = values.clamp(min=2 * _ROUNDING).sqrt()
        from_rgb = (turned / deviations).T
        variance = torch.einsum("ac,cdhw,ad->ahw", from_rgb, within, from_rgb)
        floor = (_ROUNDING / deviations.square()).view(-1, 1, 1)
        return cls(
            counts=counts,
            means=torch.einsum("ac,kchw->kahw", from_rgb, means),
            variance=torch.maximum(variance, floor),
            to_rgb=turned * deviations,
        )


def _patterns(stats: _Statistics, rows: Tensor, usable: Tensor) -> Tensor:
    height, width = stats.variance.shape[1:]
    down, across = (_steps(size, rows.device).square() for size in (height, width))
    side = math.sqrt(height * width)  # waves of one length count alike
    frequency = side * (down[:, None] / height**2 + across / width**2).sqrt()
    doubt = (
        1 / stats.counts[rows].view(-1, 1, 1, 1)
        + _ALIKE / frequency.clamp(min=1).square()
    )
    precision = 1 / (stats.variance * doubt)
    precision[..., 0, 0] = 0  # brightness and colour are a class's own
    # Weighed by their images: the mean is then no less sure than that of any class.
    share = stats.counts[usable] / stats.counts[usable].sum()
    given = stats.means[rows] - torch.einsum("k,kchw->chw", share, stats.means[usable])
    found, edges = _minimised(given, precision)
    dense = edges > _DENSE
    if dense.any():
        fine = frequency > side / 4
        found[dense] = _filtered(given[dense], precision[dense], fine)
    return torch.einsum("ca,kahw->kchw", stats.to_rgb, found)


def _filtered(given: Tensor, precision: Tensor, fine: Tensor) -> Tensor:
    """Return Wiener's estimate of images whose frequencies are equally strong.

    Args:
        given: Cosine transforms of noisy images, [k, a, h, w].
        precision: One over the variances of their noise; 0 for what is not known.
        fine: Where their strength is measured, [h, w].

    Returns:
        The images, [k, a, h, w].
    """
    beyond = given[..., fine].square() - 1 / precision[..., fine]
    strength = beyond.mean(-1).clamp(min=0)[..., None, None]
    gain = strength * precision
    return _image(given * gain / (1 + gain))


def _minimised(given: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images of least error and variation, and how full of edges they are.

    Args:
        given: Cosine transforms of noisy images, [k, a, h, w].
        precision: One over the variances of their noise; 0 for what is not known.

    Returns:
        The images, [k, a, h, w], each with mean 0, and the shares of neighbours that
        differ.
    """
    height, width = given.shape[2:]
    laplace = _laplace(height, width, given.device)
    weight = _SHARE * _noise_bound(precision, laplace)
    # ADMM's own weight: both terms of its equation alike, in the geometric mean. The
    # plain mean, which few fine frequencies make, needs ten times as many turns.
    ratio = (precision / laplace.clamp(min=1e-9)).flatten(2)[..., 1:]
    pull = ratio.log().mean((1, 2)).exp().view(-1, 1, 1, 1)
    solved = precision + pull * laplace
    solved[..., 0, 0] = 1
    edges = [torch.zeros_like(part) for part in _slopes(given)]
    debts = [torch.zeros_like(part) for part in edges]
    weights = [torch.ones_like(part[:, :1]) for part in edges]
    for _ in range(_ROUNDS):
        for _ in range(_TURNS):
            owed = cosine_transform(
                _slopes_transposed(*(e - d for e, d in zip(edges, debts, strict=True)))
            )
            image = _image((precision * given + pull * owed) / solved)
            moved = [s + d for s, d in zip(_slopes(image), debts, strict=True)]
            edges = [
                _shrunk(part, weight / pull * light)
                for part, light in zip(moved, weights, strict=True)
            ]
            debts = [part - edge for part, edge in zip(moved, edges, strict=True)]
        heights = [edge.norm(dim=1, keepdim=True) for edge in edges]
        weights = [(1 - part / _STEP).clamp(min=0.01) for part in heights]
    # The image of the edges that are left, which is even where there are none.
    drawn = cosine_transform(_slopes_transposed(*edges)) / laplace.clamp(min=1e-9)
    drawn[..., 0, 0] = 0
    differ = torch.cat([part.flatten(1) > 0 for part in heights], dim=1)
    return _image(drawn), differ.double().mean(1)


def _noise_bound(precision: Tensor, laplace: Tensor) -> Tensor:
    """Return for each image a weight at which noise alone would leave no edge.

    By duality that is the largest difference that a field of edges needs to explain
    the noise; the field of least squares bounds it. The median over draws.
    """
    drawn = generator(0, "class patterns")
    bounds = []
    for _ in range(_DRAWS):
        noise = torch.randn(precision.shape[1:], generator=drawn, dtype=torch.float64)
        field = precision.sqrt() * noise.to(precision.device) / laplace.clamp(min=1e-9)
        parts = [s.norm(dim=1).amax((1, 2)) for s in _slopes(_image(field))]
        bounds.append(torch.maximum(*parts))
    return torch.stack(bounds).median(0).values.view(-1, 1, 1, 1)


def _shrunk(values: Tensor, weight: Tensor) -> Tensor:
    # Vectors along the second axis lose a length; the shorter ones become 0.
    length = values.norm(dim=1, keepdim=True).clamp(min=1e-12)
    kept: Tensor = 1 - weight / length
    return values * kept.clamp(min=0)


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.diff(dim=-1), images.diff(dim=-2)


def _slopes_transposed(across: Tensor, down: Tensor) -> Tensor:
    pad = torch.nn.functional.pad
    return -(pad(across, (1, 1)).diff(dim=-1) + pad(down, (0, 0, 1, 1)).diff(dim=-2))


def _laplace(height: int, width: int, device: torch.device) -> Tensor:
    # What taking differences twice does to each frequency.
    down, across = (
        2 - 2 * (math.pi * _steps(size, device) / size).cos()
        for size in (height, width)
    )
    return down[:, None] + across


def _steps(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device=device)


def _image(coefficients: Tensor) -> Tensor:
    height, width = coefficients.shape[-2:]
    return inverse_cosine_transform(coefficients, size=(height, width))
