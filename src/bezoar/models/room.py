"""Networks no larger than the file that they are loaded from.

Settings beside weights are anybody's text: a few bytes could ask for terabytes. Our
networks are built without memory and then filled; before that their size is compared
with that of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from bezoar.errors import ModelError

BAD_CARD = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(ArithmeticError, RuntimeError),
)
"""What settings lead to that lie, or are no settings at all, or JSON too deep."""

_SPARE = 10_000  # values that old files lack, such as the counters of batch norms
_room: ContextVar[int | None] = ContextVar("room", default=None)


@contextmanager
def room_for(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse networks that are larger than their weights, while the block lasts.

    Args:
        weights: What is to be put into the network.
    """
    token = _room.set(sum(tensor.numel() for tensor in weights.values()) + _SPARE)
    try:
        yield
    finally:
        _room.reset(token)


def fill(network: nn.Module) -> None:
    """Give a network that was built on the meta device its memory, on the CPU.

    Args:
        network: The network; what is in it afterwards is undefined.

    Raises:
        ModelError: If it is larger than the weights that it is for.

    Example:
        >>> import torch
        >>> with room_for({"weight": torch.zeros(2, 3)}):
        ...     fill(nn.Linear(3, 2, device="meta"))
    """
    room = _room.get()
    state = network.state_dict().values()
    size = sum(tensor.numel() for tensor in state)
    if room is not None and size > room:
        raise ModelError(
            f"expected settings of a network of at most {room:,} values, as the "
            f"weights beside them have, got those of one of {size:,}; restore the file "
            "that was saved with the weights"
        )
    network.to_empty(device="cpu")
