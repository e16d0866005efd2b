"""What the commands ask for where the data are pairs of images and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from bezoar.cli.options import Column, Reading, Spec
from bezoar.data import PairSource, open_pairs
from bezoar.errors import InputError
from bezoar.models import DualEncoder, load_dual_encoder

TEMPLATE = "a photo of a {}"


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """For image-text models alone.

    Attributes:
        reference: A clean image-text model of the same kind, such as the public one
            that the model started from.
        text_column: Column, field or JSON key of the captions; looked for if it is not
            given.
        template: What a class is called where the model is measured; {} is its name.
    """

    reference: Spec = None
    text_column: Column = None
    template: Annotated[str, arg(metavar="TEXT")] = TEMPLATE

    def open(self, data: str, *, reading: Reading) -> PairSource:
        """Open a set of pairs.

        Args:
            data: A table, a folder, a file or a pattern.
            reading: How to read it.

        Returns:
            The set.
        """
        return open_pairs(
            data,
            image_column=reading.image_column,
            text_column=self.text_column,
            label_column=reading.label_column,
            split=reading.split,
        )

    def clean_model(self, *, unsafe_pickle: bool) -> DualEncoder | None:
        """Load the reference, if one was given.

        Args:
            unsafe_pickle: Accept weights in a pickle, read as tensors alone.

        Returns:
            The model, or None.
        """
        if self.reference is None:
            return None
        return load_dual_encoder(self.reference, unsafe_pickle=unsafe_pickle)

    def check_unused(self) -> None:
        """Check that none of this was given, where the data are images alone.

        Raises:
            InputError: If something was.
        """
        for name in ("reference", "text_column", "template"):
            if getattr(self, name) != getattr(PAIRING, name):
                raise InputError(
                    f"expected no --{name.replace('_', '-')} for a method that works "
                    f"on images alone, got {getattr(self, name)!r}; leave it out, or "
                    "choose a method for image-text models such as ubt"
                )


PAIRING = Pairing()
