"""torchvision.transforms.functional: what transforms do, for tensors (..., C, H, W) and PIL images.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import DTypeError
from mlgpu.nn import functional as F


class InterpolationMode(Enum):
    """How pixels between pixels are made."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"
    HAMMING = "hamming"


_PIL_MODES = {"nearest": 0, "nearest-exact": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1, "box": 4,
              "hamming": 5}


def to_tensor(pic: Any) -> Tensor:
    """A PIL image or a NumPy array (H, W, C) as a float tensor (C, H, W); bytes become 0 to 1."""
    tensor = pil_to_tensor(pic)
    return tensor.float() / 255 if tensor.dtype is mlgpu.uint8 else tensor


def pil_to_tensor(pic: Any) -> Tensor:
    """A PIL image as a tensor (C, H, W) of its own numbers."""
    array = np.array(pic)
    array = array[:, :, None] if array.ndim == 2 else array
    return mlgpu.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A tensor (C, H, W) or (H, W), or a NumPy array (H, W, C), as a PIL image.

    Floating numbers from 0 to 1 become bytes.
    """
    from PIL import Image

    if isinstance(pic, Tensor):
        planes = pic.detach().cpu()
        planes = (planes * 255).byte() if planes.is_floating_point() else planes
        pic = (planes if planes.ndim == 2 else planes.permute(1, 2, 0)).numpy()
    array = np.ascontiguousarray(pic[:, :, 0] if pic.ndim == 3 and pic.shape[2] == 1 else pic)
    return Image.fromarray(array) if mode is None else Image.fromarray(array, mode)


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False
              ) -> Tensor:
    """(tensor - mean) / std for each channel.  DTypeError for integers."""
    if not tensor.is_floating_point():
        raise DTypeError(f"normalize: expected a floating tensor, got {tensor.dtype!r}")
    shift = mlgpu.as_tensor(mean, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
    scale = mlgpu.as_tensor(std, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
    if inplace:
        return tensor.sub_(shift).div_(scale)
    return (tensor - shift) / scale


def get_size(img: Any) -> tuple[int, int]:
    """Height and width."""
    return tuple(img.shape[-2:]) if isinstance(img, Tensor) else img.size[::-1]  # type: ignore[return-value]


def resize(img: Any, size: int | Sequence[int], interpolation: Any = "bilinear",
           max_size: int | None = None, antialias: bool = True) -> Any:
    """Another size: (height, width), or of the shorter side, which keeps the aspect."""
    height, width = get_size(img)
    if isinstance(size, int) or len(size) == 1:
        short = size if isinstance(size, int) else size[0]
        long = int(short * max(height, width) / min(height, width))
        new = (short, long) if height <= width else (long, short)
    else:
        new = (int(size[0]), int(size[1]))
    mode = str(getattr(interpolation, "value", interpolation))
    if not isinstance(img, Tensor):
        return img.resize(new[::-1], _PIL_MODES[mode])
    if new == (height, width):
        return img
    batch = img if img.ndim == 4 else img[None]
    smooth = mode in ("bilinear", "bicubic")
    done = F.interpolate(batch.float(), new, mode=mode,
                         align_corners=False if smooth else None, antialias=antialias and smooth)
    done = done if img.is_floating_point() else done.round().clamp(0, 255).to(img.dtype)
    return done if img.ndim == 4 else done[0]


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """A part of the image."""
    if isinstance(img, Tensor):
        return img[..., top:top + height, left:left + width]
    return img.crop((left, top, left + width, top + height))


def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """The part in the middle; a smaller image is padded with 0 first."""
    high, wide = (output_size,) * 2 if isinstance(output_size, int) else output_size
    height, width = get_size(img)
    if height < high or width < wide:
        missing = max(wide - width, 0), max(high - height, 0)
        img = pad(img, [missing[0] // 2, missing[1] // 2, (missing[0] + 1) // 2,
                        (missing[1] + 1) // 2])
        height, width = get_size(img)
    return crop(img, round((height - high) / 2), round((width - wide) / 2), high, wide)


def pad(img: Any, padding: int | Sequence[int], fill: int = 0) -> Any:
    """`fill` around the image: one width for all sides, or left, top, right, bottom."""
    sides = [padding] * 4 if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * 2 if len(sides) == 2 else sides
    if isinstance(img, Tensor):
        return F.pad(img, (left, right, top, bottom), value=fill)
    from PIL import ImageOps

    return ImageOps.expand(img, (left, top, right, bottom), fill)


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    return img.flip(-1) if isinstance(img, Tensor) else img.transpose(0)


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    return img.flip(-2) if isinstance(img, Tensor) else img.transpose(1)


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """The luminance of a colour image, in one channel or in three."""
    if not isinstance(img, Tensor):
        gray = img.convert("L")
        return gray if num_output_channels == 1 else gray.convert("RGB")
    red, green, blue = img.float().unbind(-3)
    light = (0.2989 * red + 0.587 * green + 0.114 * blue).to(img.dtype).unsqueeze(-3)
    return light if num_output_channels == 1 else light.expand(img.shape).clone()


def _blend(image: Tensor, other: Tensor | float, ratio: float) -> Tensor:
    """ratio * image + (1 - ratio) * other, kept in the image's range."""
    top = 1.0 if image.is_floating_point() else 255.0
    mixed = (image.float() * ratio + other * (1 - ratio)).clamp(0, top)
    return mixed.to(image.dtype)


def adjust_brightness(img: Tensor, brightness_factor: float) -> Tensor:
    """Every value times a factor."""
    return _blend(img, 0.0, brightness_factor)


def adjust_contrast(img: Tensor, contrast_factor: float) -> Tensor:
    """Every value's distance from the mean luminance times a factor."""
    gray = rgb_to_grayscale(img).float()
    gray = gray if img.is_floating_point() else gray.floor()
    return _blend(img, gray.mean((-3, -2, -1), keepdim=True), contrast_factor)


def adjust_saturation(img: Tensor, saturation_factor: float) -> Tensor:
    """Every value's distance from the pixel's luminance times a factor."""
    return _blend(img, rgb_to_grayscale(img).float(), saturation_factor)


def adjust_hue(img: Tensor, hue_factor: float) -> Tensor:
    """Colours turned on the wheel by a fraction from -0.5 to 0.5 of it."""
    x = img if img.is_floating_point() else img.float() / 255
    value, low = x.amax(-3), x.amin(-3)
    chroma = value - low
    safe = chroma.masked_fill(chroma == 0, 1)
    red, green, blue = ((value - part) / safe for part in x.unbind(-3))
    r, g, _ = x.unbind(-3)
    hue = mlgpu.where(r == value, blue - green,
                      mlgpu.where(g == value, 2 + red - blue, 4 + green - red))
    hue = (hue / 6 + 1 + hue_factor) % 1.0
    saturation = chroma / value.masked_fill(value == 0, 1)
    parts = []
    for n in (5, 3, 1):  # red, green, blue from hue, saturation and value
        k = (n + hue * 6) % 6
        parts.append(value - value * saturation * mlgpu.minimum(k, 4 - k).clamp(0, 1))
    turned = mlgpu.stack(parts, -3)
    return turned if img.is_floating_point() else (turned * 255).round().clamp(0, 255).to(img.dtype)


def gaussian_blur(img: Tensor, kernel_size: int | Sequence[int], sigma: float) -> Tensor:
    """A convolution with a normal density of standard deviation `sigma`, edges reflected."""
    sizes = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
    channels = img.shape[-3]
    batch = (img if img.ndim == 4 else img[None]).float()
    lines = []
    for n in sizes:  # width and height
        places = mlgpu.arange(n, device=img.device) - (n - 1) / 2
        line = (-0.5 * (places / sigma) ** 2).exp()
        lines.append(line / line.sum())
    kernel = (lines[1][:, None] * lines[0]).expand(channels, 1, sizes[1], sizes[0])
    wide, high = sizes[0] // 2, sizes[1] // 2
    batch = F.conv2d(F.pad(batch, (wide, wide, high, high), mode="reflect"), kernel,
                     groups=channels)
    batch = batch if img.is_floating_point() else batch.round().clamp(0, 255).to(img.dtype)
    return batch if img.ndim == 4 else batch[0]
