"""Transforms of images as tensors (..., C, H, W), under torchvision's names.

What is random is drawn from the process's generator: in a DataLoader's worker it follows from the
epoch's seed and the number of the batch, so that a run which is resumed repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops import arrange
from mlgpu.ops.creation import tensor
from mlgpu.ops.grid_sample import affine_grid, grid_sample
from mlgpu.ops.pad import pad
from mlgpu.ops.random import rand, randperm
from mlgpu.ops.resample import interpolate
from mlgpu.tensor import Tensor

__all__ = ["CenterCrop", "ColorJitter", "Compose", "CutMix", "Grayscale", "MixUp", "Normalize",
           "RandomApply", "RandomCrop", "RandomErasing", "RandomHorizontalFlip",
           "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize", "ToDtype"]

Size = int | Sequence[int]


def _pair(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _draw(low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(rand((), device="cpu").item())


def _below(count: int) -> int:
    return min(int(_draw() * count), count - 1)


def _image(name: str, image: Tensor) -> tuple[int, int]:
    """Height and width.  ShapeError for what is no image."""
    if not isinstance(image, Tensor) or image.ndim < 3:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ShapeError(f"{name}: expected an image (..., C, H, W), got {got}")
    return image.shape[-2], image.shape[-1]


def _floating(name: str, image: Tensor) -> None:
    if not image.is_floating_point():
        raise DTypeError(f"{name}: expected a floating image, got {image.dtype.name}; put "
                         "ToDtype(mlgpu.float32, scale=True) before it")


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


class RandomApply:
    """`transforms` with probability `p`, else nothing."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        self.inner, self.p = Compose(transforms), p

    def __call__(self, image: Any) -> Any:
        return self.inner(image) if _draw() < self.p else image


class ToDtype:
    """The image in a dtype; with `scale`, uint8's 0 to 255 become 0 to 1 of a floating one."""

    def __init__(self, dtype: dtypes.DTypeLike = dtypes.float32, scale: bool = False) -> None:
        self.dtype, self.scale = dtypes.as_dtype(dtype), scale

    def __call__(self, image: Tensor) -> Tensor:
        byte = image.dtype is dtypes.uint8
        found = image.to(self.dtype)
        return found / 255 if self.scale and byte and self.dtype.is_floating_point else found


class Normalize:
    """(image - mean) / std, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(std):
            raise ShapeError("Normalize: mean and std need one number per channel, std not 0, got "
                             f"{list(mean)} and {list(std)}")
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Tensor) -> Tensor:
        _image("Normalize", image)
        _floating("Normalize", image)
        if image.shape[-3] not in (len(self.mean), 1) and len(self.mean) != 1:
            raise ShapeError(f"Normalize: {len(self.mean)} channels expected, got image "
                             f"{tuple(image.shape)}")
        mean, std = (tensor(v, dtype=image.dtype, device=image.device).reshape(-1, 1, 1)
                     for v in (self.mean, self.std))
        return (image - mean) / std


class Resize:
    """The image at another size; an int is the length of the shorter side."""

    def __init__(self, size: Size, mode: str = "bilinear") -> None:
        self.size, self.mode = size, mode

    def __call__(self, image: Tensor) -> Tensor:
        height, width = _image("Resize", image)
        if isinstance(self.size, int):
            short = min(height, width)
            target = (round(height * self.size / short), round(width * self.size / short))
        else:
            target = _pair(self.size)
        return _resized(image, target, self.mode)


def _resized(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    byte = image.dtype is dtypes.uint8
    flat = image.reshape(math.prod(image.shape[:-3]), *image.shape[-3:])
    found = interpolate(flat.float() if byte else flat, size=size, mode=mode)
    if byte:
        found = found.round().clamp(0, 255).to(dtypes.uint8)
    return found.reshape(*image.shape[:-2], *size)


def _crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return image[..., top:top + height, left:left + width]


class CenterCrop:
    """The middle of the image.  ShapeError where the image is smaller."""

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def __call__(self, image: Tensor) -> Tensor:
        height, width = _image("CenterCrop", image)
        if height < self.size[0] or width < self.size[1]:
            raise ShapeError(f"CenterCrop: image {tuple(image.shape)} is smaller than {self.size}")
        return _crop(image, (height - self.size[0]) // 2, (width - self.size[1]) // 2, *self.size)


class RandomCrop:
    """A part of the image at a random place, after `padding` zeros around it.

    ShapeError where the padded image is smaller than the part.
    """

    def __init__(self, size: Size, padding: int = 0) -> None:
        self.size, self.padding = _pair(size), padding

    def __call__(self, image: Tensor) -> Tensor:
        _image("RandomCrop", image)
        if self.padding:
            image = pad(image, (self.padding,) * 4)
        height, width = image.shape[-2:]
        rows, columns = height - self.size[0] + 1, width - self.size[1] + 1
        if rows < 1 or columns < 1:
            raise ShapeError(f"RandomCrop: image {tuple(image.shape)} is smaller than {self.size}")
        return _crop(image, _below(rows), _below(columns), *self.size)


class RandomResizedCrop:
    """A part of random area and aspect ratio, at `size`: Szegedy et al. 2015."""

    def __init__(self, size: Size, scale: tuple[float, float] = (0.08, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3), mode: str = "bilinear") -> None:
        self.size, self.scale, self.ratio, self.mode = _pair(size), scale, ratio, mode

    def __call__(self, image: Tensor) -> Tensor:
        height, width = _image("RandomResizedCrop", image)
        for _ in range(10):
            area = height * width * _draw(*self.scale)
            ratio = math.exp(_draw(*map(math.log, self.ratio)))
            rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                break
        else:  # the largest part of an allowed ratio, in the middle
            ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
            rows, columns = min(height, round(width / ratio)), min(width, round(height * ratio))
        top, left = _below(height - rows + 1), _below(width - columns + 1)
        return _resized(_crop(image, top, left, rows, columns), self.size, self.mode)


class RandomHorizontalFlip:
    """Left and right exchanged, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Tensor) -> Tensor:
        _image("RandomHorizontalFlip", image)
        return arrange.flip(image, (-1,)) if _draw() < self.p else image


class RandomVerticalFlip:
    """Top and bottom exchanged, with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Tensor) -> Tensor:
        _image("RandomVerticalFlip", image)
        return arrange.flip(image, (-2,)) if _draw() < self.p else image


class RandomRotation:
    """Turned around its middle by a random angle within ±degrees; zeros come in at corners."""

    def __init__(self, degrees: float, mode: str = "bilinear") -> None:
        self.degrees, self.mode = degrees, mode

    def __call__(self, image: Tensor) -> Tensor:
        height, width = _image("RandomRotation", image)
        _floating("RandomRotation", image)
        angle = math.radians(_draw(-self.degrees, self.degrees))
        cos, sin = math.cos(angle), math.sin(angle)
        flat = image.reshape(math.prod(image.shape[:-3]), *image.shape[-3:])
        # Coordinates run from -1 to 1 along both sides, which may differ in length.
        matrix = tensor([[[cos, sin * height / width, 0.0], [-sin * width / height, cos, 0.0]]],
                        dtype=image.dtype, device=image.device).expand(flat.shape[0], 2, 3)
        grid = affine_grid(matrix, list(flat.shape), align_corners=False)
        return grid_sample(flat, grid, mode=self.mode, align_corners=False).reshape(image.shape)


class Grayscale:
    """One channel (or `num_output_channels` equal ones): ITU-R BT.601's luma of RGB."""

    def __init__(self, num_output_channels: int = 1) -> None:
        self.channels = num_output_channels

    def __call__(self, image: Tensor) -> Tensor:
        return _gray(image).expand(*image.shape[:-3], self.channels, *image.shape[-2:])


def _gray(image: Tensor) -> Tensor:
    _image("Grayscale", image)
    if image.shape[-3] == 1:
        return image
    if image.shape[-3] != 3:
        raise ShapeError(f"Grayscale: expected 1 or 3 channels, got {tuple(image.shape)}")
    weights = tensor([0.299, 0.587, 0.114], device=image.device).reshape(3, 1, 1)
    found = (image.float() * weights).sum(-3, keepdim=True)
    return found.to(image.dtype)


class ColorJitter:
    """Brightness, contrast and saturation multiplied by random factors in [1 - x, 1 + x].

    Of floating images from 0 to 1, in random order.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
                 ) -> None:
        self.amounts = brightness, contrast, saturation

    def __call__(self, image: Tensor) -> Tensor:
        _image("ColorJitter", image)
        _floating("ColorJitter", image)
        for kind in randperm(3, device="cpu").tolist():
            factor = _draw(max(0.0, 1 - self.amounts[kind]), 1 + self.amounts[kind])
            if kind == 0:
                image = image * factor
            elif kind == 1:
                image = _blend(image, _gray(image).mean((-3, -2, -1), keepdim=True), factor)
            else:
                image = _blend(image, _gray(image), factor)
            image = image.clamp(0, 1)
        return image


def _blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    return image * factor + other * (1 - factor)


class RandomErasing:
    """A random rectangle overwritten by `value`, with probability `p`: Zhong et al. 2020."""

    def __init__(self, p: float = 0.5, scale: tuple[float, float] = (0.02, 0.33),
                 ratio: tuple[float, float] = (0.3, 3.3), value: float = 0.0) -> None:
        self.p, self.scale, self.ratio, self.value = p, scale, ratio, value

    def __call__(self, image: Tensor) -> Tensor:
        height, width = _image("RandomErasing", image)
        if _draw() >= self.p:
            return image
        area = height * width * _draw(*self.scale)
        ratio = math.exp(_draw(*map(math.log, self.ratio)))
        rows = min(height, max(1, round(math.sqrt(area * ratio))))
        columns = min(width, max(1, round(math.sqrt(area / ratio))))
        image = image.clone()
        top, left = _below(height - rows + 1), _below(width - columns + 1)
        image[..., top:top + rows, left:left + columns] = self.value
        return image


# --- of batches -----------------------------------------------------------------------------------


def _beta(alpha: float) -> float:
    """A draw from Beta(alpha, alpha): Johnk 1964, in logarithms for small alpha."""
    while True:
        x, y = (math.log(max(_draw(), 1e-300)) / alpha for _ in range(2))
        top = max(x, y)
        total = top + math.log(math.exp(x - top) + math.exp(y - top))
        if total <= 0:
            return math.exp(x - total)


class _Mix:
    def __init__(self, num_classes: int, alpha: float = 1.0) -> None:
        if alpha <= 0:
            raise ValueError(f"{type(self).__name__}: alpha must be above 0, got {alpha}")
        self.num_classes, self.alpha = num_classes, alpha

    def _targets(self, labels: Tensor, share: float) -> Tensor:
        from mlgpu.ops.embedding import one_hot

        sure = one_hot(labels, self.num_classes).float()
        return sure * share + sure.roll(1, 0) * (1 - share)


class MixUp(_Mix):
    """Each image blended with its neighbour in the batch, and so its class: Zhang et al. 2018.

    (n, C, H, W) and classes (n,) to the same and probabilities (n, num_classes).
    """

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        _floating("MixUp", images)
        share = _beta(self.alpha)
        return _blend(images, images.roll(1, 0), share), self._targets(labels, share)


class CutMix(_Mix):
    """A rectangle of each image from its neighbour in the batch: Yun et al. 2019."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        height, width = _image("CutMix", images)
        side = math.sqrt(1 - _beta(self.alpha))
        y, x = _below(height), _below(width)
        top, bottom = (min(max(round(y + d * side * height / 2), 0), height) for d in (-1, 1))
        left, right = (min(max(round(x + d * side * width / 2), 0), width) for d in (-1, 1))
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, self._targets(labels, share)
