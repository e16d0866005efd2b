"""A copy of an encoder that knows nothing: the same architecture, other weights."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from bezoar.errors import ModelError
from bezoar.models.initial import emptied
from bezoar.models.simclr import simclr
from bezoar.models.simclr_files import encoder_card
from bezoar.models.wrap import unwrapped


class Empty(NamedTuple):
    """An empty copy, and how it was made.

    Attributes:
        model: The copy, on the CPU; its weights need gradients.
        how: "rebuilt" from its sizes (one of our encoders), or "reset": each layer
            drawn anew by its kind, everything else from a narrow normal distribution.
    """

    model: nn.Module
    how: Literal["rebuilt", "reset"]


def empty_copy(encoder: nn.Module, *, seed: int) -> Empty:
    """Return a network of an encoder's architecture that has learnt nothing.

    Nothing random in it equals what the encoder has; the normalisation of the images
    is copied, for it belongs to the encoder.

    Args:
        encoder: Any module; it is left as it was.
        seed: Seeds the weights; the global random state stays as it was.

    Returns:
        The copy and how it was made.

    Raises:
        ModelError: If random weights come out as they were, or some cannot be drawn.

    Example:
        >>> net = simclr("tiny", seed=1)
        >>> fresh, how = empty_copy(net, seed=0)
        >>> how, fresh.projector[0].weight.equal(net.projector[0].weight)
        ('rebuilt', False)
    """
    source = unwrapped(encoder)
    fresh = _rebuilt(source, seed=seed)
    if fresh is not None:
        made = Empty(fresh, "rebuilt")
    else:
        made = Empty(emptied(source, seed=seed), "reset")
    theirs = dict(source.named_parameters())
    for name, parameter in made.model.named_parameters():
        is_constant = bool((parameter == parameter.flatten()[0]).all())
        if not is_constant and parameter.equal(theirs[name].detach().cpu()):
            raise ModelError(
                f"expected an empty student, got the encoder's own weights in {name!r}"
                "; give a student that was built anew, or another seed"
            )
    made.model.requires_grad_(True)
    return made


def _rebuilt(source: nn.Module, *, seed: int) -> nn.Module | None:
    try:
        fresh = simclr(**encoder_card(source), seed=seed)
    except ModelError:  # an encoder of another kind, or of other sizes
        return None
    own, theirs = fresh.state_dict(), source.state_dict()
    same = own.keys() == theirs.keys() and all(
        own[name].shape == theirs[name].shape for name in own
    )
    return fresh if same else None
