"""Images as small pictures that a page can hold, within a budget of bytes."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image
from torch import Tensor
from torch.nn import functional

from bezoar.data import to_uint8
from bezoar.shapes import Float, UInt8

LARGEST = 96  # pixels of the longer side; a page shows thumbnails at most so large
_EXACT = 40  # pixels: up to here a trigger of one pixel must survive


class Budget:
    """Counts the bytes that the pictures of a page may still take.

    Args:
        limit: Bytes of all data addresses together.

    Example:
        >>> budget = Budget(100)
        >>> budget.takes("x" * 60), budget.takes("x" * 60), budget.left
        (True, False, 40)
    """

    def __init__(self, limit: int) -> None:
        self.left = limit

    def takes(self, address: str) -> bool:
        """Take the bytes of a picture, if there are as many.

        Args:
            address: The picture.

        Returns:
            Whether it still fits; once one does not, its bytes stay free.
        """
        if len(address) > self.left:
            return False
        self.left -= len(address)
        return True


def picture(
    image: UInt8[Tensor, "c h w"], *, largest: int = LARGEST, exact: bool = False
) -> str:
    """Return an image as a data address.

    Args:
        image: Grey or colour, as stored.
        largest: Longer side in pixels; larger images are made smaller.
        exact: Without loss: for evidence that is looked at closely.

    Returns:
        A WebP picture in base64.

    Example:
        >>> import torch
        >>> picture(torch.zeros(3, 8, 8, dtype=torch.uint8))[:28]
        'data:image/webp;base64,UklGR'
    """
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    shown = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    shown = shown.convert("RGB")
    if max(shown.size) > largest:
        shown.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    file = BytesIO()
    if exact:
        shown.save(file, "WEBP", lossless=True, quality=60, method=4)
    else:
        quality = 90 if max(shown.size) <= _EXACT else 78
        shown.save(file, "WEBP", quality=quality, method=4, use_sharp_yuv=True)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def masked(
    image: UInt8[Tensor, "c h w"], mask: UInt8[Tensor, "mask_h mask_w"]
) -> UInt8[Tensor, "c h w"]:
    """Return the part of an image that a mask keeps, on grey.

    Args:
        image: The image.
        mask: 255 keeps a pixel; it is brought to the image's size.

    Returns:
        The pattern: what the model needs of the image.
    """
    kept = mask_for(mask, image).float() / 255
    return to_uint8(image.float() / 255 * kept + 0.5 * (1 - kept))


def mask_for(
    mask: UInt8[Tensor, "mask_h mask_w"], image: UInt8[Tensor, "c h w"]
) -> UInt8[Tensor, "1 h w"]:
    """Return a mask at the size of an image.

    Args:
        mask: 255 keeps a pixel.
        image: The image that it belongs to.

    Returns:
        The mask, scaled linearly.
    """
    size = (image.shape[1], image.shape[2])
    scaled = functional.interpolate(
        mask[None, None].float(), size=size, mode="bilinear", align_corners=False
    )
    return to_uint8(scaled[0] / 255)


def difference(
    before: UInt8[Tensor, "c h w"], after: UInt8[Tensor, "c h w"], *, gain: float = 8
) -> UInt8[Tensor, "c h w"]:
    """Return how an image changed, around grey.

    Args:
        before: The image as it was.
        after: The image as it is; of the same shape.
        gain: How much the change is enlarged.

    Returns:
        Grey where nothing changed, lighter where a value rose, darker where it fell.
    """
    change: Float[Tensor, "c h w"] = (after.float() - before.float()) / 255
    return to_uint8(0.5 + gain * change / 2)
