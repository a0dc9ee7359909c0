"""torchvision.io: images as tensors, read by Pillow."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from mlgpu import Tensor
from mlgpu.as_torch.vision_functional import pil_to_tensor, to_pil_image


class ImageReadMode(Enum):
    """Which channels an image is read with: Pillow's names, None for its own."""

    UNCHANGED = None
    GRAY = "L"
    GRAY_ALPHA = "LA"
    RGB = "RGB"
    RGB_ALPHA = "RGBA"


def read_image(path: str | os.PathLike[str], mode: Any = ImageReadMode.UNCHANGED) -> Tensor:
    """An image as bytes (C, H, W)."""
    from PIL import Image

    wanted = ImageReadMode[mode] if isinstance(mode, str) else mode
    with Image.open(path) as image:
        return pil_to_tensor(image if wanted.value is None else image.convert(wanted.value))


def write_png(input: Tensor, filename: str, compression_level: int = 6) -> None:
    """Write bytes (C, H, W) as a PNG file."""
    to_pil_image(input).save(filename, format="PNG", compress_level=compression_level)


def write_jpeg(input: Tensor, filename: str, quality: int = 75) -> None:
    """Write bytes (C, H, W) as a JPEG file."""
    to_pil_image(input).save(filename, format="JPEG", quality=quality)
