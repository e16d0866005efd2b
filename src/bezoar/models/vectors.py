"""What an encoder makes of many images: one vector of length 1 for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import DivergedError, ModelError
from bezoar.models.fast import frozen_folded
from bezoar.models.simclr import backbone_of
from bezoar.models.wrap import first_tensor
from bezoar.runtime import Progress, Runtime
from bezoar.shapes import Float, UInt8


def unit_vectors(
    encoder: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    *,
    runtime: Runtime = Runtime(),
) -> Float[Tensor, "n d"]:
    """Return the vectors of an encoder for images, each brought to length 1.

    Args:
        encoder: A ``SimCLR``, or any module from images in [0, 1] to vectors; it is
            left as it was.
        images: Images as they are stored.
        runtime: Where and how to run.

    Returns:
        Vectors in float32 on the CPU.

    Raises:
        ModelError: If the encoder gives something else than one vector per image.
        DivergedError: If a vector is not finite.

    Example:
        >>> from bezoar.models.simclr import simclr
        >>> images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
        >>> unit_vectors(simclr("tiny"), images).shape
        torch.Size([3, 128])
    """
    device, dtype = runtime.device, runtime.compute_dtype()
    probe = images[:2].float() / 255
    copy = frozen_folded(backbone_of(encoder), device=device, dtype=dtype, images=probe)
    found = []
    for start in range(0, len(images), runtime.batch_size):
        shown = images[start : start + runtime.batch_size].to(device).float() / 255
        with torch.no_grad():
            output = first_tensor(copy(shown))
        if output is None or output.ndim != 2 or len(output) != len(shown):
            told = "no tensor" if output is None else f"a tensor {tuple(output.shape)}"
            raise ModelError(
                f"expected one vector per image, got {told} for {len(shown)} images; "
                "wrap the encoder so that it returns its pooled features"
            )
        found.append(functional.normalize(output.float(), dim=1).cpu())
        done = start + len(shown)
        runtime.progress(Progress(stage="represent", done=done, total=len(images)))
    vectors = torch.cat(found)
    if not vectors.isfinite().all():
        raise DivergedError(
            "expected finite vectors, got NaN or infinity; check the encoder's weights"
        )
    return vectors
