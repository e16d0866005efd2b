"""Channel Lipschitz Pruning: channels that can amplify a trigger, found without data.

Zheng et al., Data-free Backdoor Removal based on Channel Lipschitzness, 2022,
https://arxiv.org/abs/2208.03111.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.data import ImageData
from bezoar.errors import InputError, ModelError
from bezoar.models.wrap import unwrapped
from bezoar.repair.students import NO_VERDICT
from bezoar.results import Provenance, Repair
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Bool, Float


@dataclass(frozen=True, kw_only=True)
class LipschitzPruning:
    """Silences the channels of a network that can amplify most; needs no data.

    Attributes:
        threshold: Deviations above the mean of its layer from which on a channel is
            silenced (u in the paper).
    """

    threshold: float = 3.0

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise InputError(
                f"expected a threshold above 0, got {self.threshold}; raise it"
            )

    def repair(
        self,
        model: nn.Module,
        *,
        data: ImageData | None = None,  # noqa: ARG002
        seed: int = 0,
        runtime: Runtime = Runtime(),
    ) -> Repair:
        """Silence channels in a copy of a network.

        Args:
            model: An encoder or a classifier with convolutions and batch norms; it is
                left as it was.
            data: Not looked at; all repairs are called alike.
            seed: Told in the result; nothing here is random.
            runtime: Where progress is told.

        Returns:
            The copy, in eval mode on the CPU; the model itself where no channel stands
            out.

        Raises:
            ModelError: If there is no batch norm behind a convolution.
        """
        start = time.perf_counter()
        network = copy.deepcopy(unwrapped(model)).cpu().eval()
        pairs = list(_pairs(network))
        if not pairs:
            raise ModelError(
                "expected a network with batch norms behind convolutions, got "
                f"{type(network).__name__} without; choose another repair"
            )
        rows, silenced, count = [], 0, 0
        for done, (name, conv, norm) in enumerate(pairs, 1):
            bounds = channel_bounds(conv.weight, norm)
            marks = outliers(bounds, threshold=self.threshold)
            with torch.no_grad():
                norm.weight[marks] = 0
                norm.bias[marks] = 0
            silenced, count = silenced + int(marks.sum()), count + len(marks)
            row: dict[str, object] = {"layer": name, "channels": len(marks)}
            rows.append({**row, "silenced": int(marks.sum())})
            runtime.progress(Progress(stage="prune", done=done, total=len(pairs)))
        seconds = time.perf_counter() - start
        found = silenced > 0
        return Repair(
            model=network if found else model,
            status="repaired" if found else "nothing found",
            summary=(
                f"{silenced:,} of {count:,} channels were silenced, for they can "
                f"amplify more than others of their layer. {NO_VERDICT}"
            ),
            stop_reason="all layers were looked at",
            history=({"silenced": 0.0}, {"silenced": float(silenced)}),
            figures={"silenced_rate": silenced / count},
            tables={"layers": tuple(rows)},
            seconds={"prune": seconds},
            provenance=Provenance(
                method="lipschitz-pruning",
                settings=asdict(self),
                seed=seed,
                seconds=seconds,
                forwards_per_image=0.0,
            ),
        )


def channel_bounds(
    weight: Float[Tensor, "k i h w"], norm: _BatchNorm
) -> Float[Tensor, " k"]:
    """Return how much each channel of a convolution and its batch norm can amplify.

    Args:
        weight: Of the convolution.
        norm: The batch norm behind it.

    Returns:
        The largest singular value of the kernel as a matrix (i, h w), times
        ``|gamma / sigma|``.

    Example:
        >>> channel_bounds(torch.ones(2, 1, 1, 1), nn.BatchNorm2d(2, eps=0))
        tensor([1., 1.])
    """
    assert norm.running_var is not None
    spectral = torch.linalg.matrix_norm(weight.detach().flatten(2).double(), ord=2)
    scale = (
        norm.weight.detach().double() / (norm.running_var + norm.eps).double().sqrt()
    )
    bounds: Tensor = spectral * scale.abs()
    return bounds.float()


def outliers(bounds: Float[Tensor, " k"], *, threshold: float) -> Bool[Tensor, " k"]:
    """Return which channels stand out in their layer.

    Args:
        bounds: What ``channel_bounds`` gave.
        threshold: Deviations above the mean.

    Returns:
        True for those above.

    Example:
        >>> outliers(torch.tensor([1.0] * 20 + [9.0]), threshold=3.0).sum().item()
        1
    """
    if len(bounds) < 2:
        return torch.zeros_like(bounds, dtype=torch.bool)
    marks: Tensor = bounds > bounds.mean() + threshold * bounds.std()
    return marks


def _pairs(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, _BatchNorm]]:
    # A batch norm belongs to the convolution defined last before it, as in the
    # official code: true of ResNets, VGGs and their like.
    latest: nn.Conv2d | None = None
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            latest = module
        elif isinstance(module, _BatchNorm) and module.affine and latest is not None:
            fits = module.num_features == latest.out_channels
            if fits and module.running_var is not None:
                yield name, latest, module
            latest = None
