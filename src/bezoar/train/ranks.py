"""A training shared by several processes, each of which sees its part of every batch.

All processes hold the same images, draw the same batches and augmentations, and take
their rows of them. Gradients are added up before each step, and batch norms are told
the mean and variance of the whole batch, so that the weights are those of a training
in one process but for rounding, whatever the number of processes. ``torchrun`` starts
them; ``Runtime(distributed=True)`` says that a training is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bezoar.errors import InputError
from bezoar.runtime import Runtime


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that share a training.

    Attributes:
        rank: Which of them this is; 0 writes what is kept.
        size: How many there are.

    Example:
        >>> Ranks(rank=1, size=2).share(torch.arange(5)).tolist()
        [3, 4]
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, runtime: Runtime) -> Ranks:
        """Return the place of this process.

        Args:
            runtime: Says whether the training is shared.

        Returns:
            The place; that of the only process where it is not.

        Raises:
            InputError: If the processes have not been joined.
        """
        if not runtime.distributed:
            return cls()
        if not (distributed.is_available() and distributed.is_initialized()):
            raise InputError(
                "expected torch.distributed.init_process_group before a shared "
                "training, got none; start with torchrun and call it, or leave out "
                "distributed=True"
            )
        distributed.barrier()  # what the first has written by now is read by all
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def check(self, key: str, *, batch_size: int, done: int = 0) -> None:
        """Check that all processes are about to do the same.

        Args:
            key: Names settings and data, in hexadecimal.
            batch_size: Images per step.
            done: Where the training goes on.

        Raises:
            InputError: If they are not, or a process would get a single image.
        """
        if self.size > 1 and batch_size < 2 * self.size:
            raise InputError(
                f"expected batches of at least {2 * self.size} images for {self.size} "
                f"processes, got {batch_size}; raise batch_size"
            )
        mine = torch.tensor([int(key[:12] or "0", 16), done])
        if not self.total(mine).equal(self.size * self.led(mine)):
            raise InputError(
                "expected the same settings, images and checkpoint in all processes, "
                "got others; give all of them the same set and a work folder that "
                "they share"
            )

    def share(self, batch: Tensor) -> Tensor:
        """Return the rows of this process.

        Args:
            batch: The same in all processes.

        Returns:
            Consecutive rows; the first processes may get one more.
        """
        return batch.tensor_split(self.size)[self.rank]

    def whole(self, part: Tensor, rows: int) -> Tensor:
        """Return a batch of which each process has its share.

        Args:
            part: What became of the share of this process.
            rows: Of the batch.

        Returns:
            The batch, in all processes. A gradient goes back to the parts.
        """
        if self.size == 1:
            return part
        places = self.share(torch.arange(rows, device=part.device))
        empty = part.new_zeros(rows, *part.shape[1:])
        return _add_up(empty.index_copy(0, places, part))

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes.

        Args:
            value: Of this process.

        Returns:
            The sum, the same in all.
        """
        if self.size == 1:
            return value
        value = value.detach().clone()
        distributed.all_reduce(value)
        return value

    def led(self, value: Tensor) -> Tensor:
        """Return what the first process has.

        Args:
            value: Of this process.

        Returns:
            The value of the first.
        """
        return self.total(value if self.leads else torch.zeros_like(value))

    def backward(self, loss: Tensor, network: nn.Module, *, weight: float) -> None:
        """Add up the gradients of the processes.

        Args:
            loss: Of this process.
            network: Gets the gradients.
            weight: What the loss of this process counts; one by itself counts 1.
        """
        if self.size == 1:
            loss.backward()
            return
        (loss * weight).backward()
        slopes = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([slope.flatten() for slope in slopes])
        distributed.all_reduce(flat)
        parts = flat.split([slope.numel() for slope in slopes])
        for slope, part in zip(slopes, parts, strict=True):
            slope.copy_(part.view(slope.shape))

    @contextmanager
    def synced(self, network: nn.Module) -> Iterator[None]:
        """Let batch norms in training see the whole batch.

        torch's own SyncBatchNorm needs a GPU, and another kind of module.

        Args:
            network: Its norms are as they were when the block ends.

        Yields:
            Nothing.
        """
        norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
        norms = norms if self.size > 1 else []
        for norm in norms:
            vars(norm)["forward"] = partial(self._normed, norm)
        try:
            yield
        finally:
            for norm in norms:
                del vars(norm)["forward"]

    def _normed(self, norm: _BatchNorm, given: Tensor) -> Tensor:
        if not norm.training:
            plain: Tensor = type(norm).forward(norm, given)
            return plain
        values = given.float()
        dims = [d for d in range(given.ndim) if d != 1]
        var, mean = torch.var_mean(values, dims, correction=0)
        count = mean.new_full((1,), given.numel() / given.shape[1])
        parts = self.whole(torch.cat([mean, var, count])[None], self.size)
        means, variances, counts = parts.split([len(mean), len(var), 1], dim=1)
        num = counts.sum()
        mean = (counts * means).sum(0) / num
        var = (counts * (variances + (means - mean).square())).sum(0) / num
        _remember(norm, mean.detach(), (var * num / (num - 1)).detach())
        shape = (1, -1) + (1,) * (given.ndim - 2)
        out = (values - mean.view(shape)) * (var + norm.eps).rsqrt().view(shape)
        if norm.affine:
            out = out * norm.weight.view(shape) + norm.bias.view(shape)
        normed: Tensor = out.to(given.dtype)
        return normed


ALONE = Ranks()


def check_alone(runtime: Runtime, what: str) -> None:
    """Refuse to share a training that cannot be shared.

    Args:
        runtime: Says whether it is to be.
        what: What is trained.

    Raises:
        InputError: If it is.
    """
    if runtime.distributed:
        raise InputError(
            f"expected a training of {what} in one process, got distributed=True; "
            "leave it out"
        )


class _AddUp(torch.autograd.Function):
    """Sum over the processes, for values and for gradients."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(_: Any, *slopes: Tensor) -> Tensor:
        slope = slopes[0].contiguous().clone()
        distributed.all_reduce(slope)
        return slope


def _add_up(value: Tensor) -> Tensor:
    total: Tensor = _AddUp.apply(value)  # type: ignore[no-untyped-call]
    return total


def _remember(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None  # torch keeps all three or none
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum
    if rate is None:
        rate = 1 / int(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(var, rate)
