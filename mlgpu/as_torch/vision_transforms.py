"""torchvision.transforms: the transforms of image pipelines; what is random draws from Python's
stream, as each worker of a DataLoader seeds it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from mlgpu.as_torch import vision_functional as functional
from mlgpu.as_torch.vision_functional import InterpolationMode as InterpolationMode
from mlgpu.nn import Module


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img


class Lambda:
    """A function as a transform."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)


class ToTensor:
    """A PIL image or NumPy array (H, W, C) as a tensor (C, H, W) from 0 to 1."""

    def __call__(self, pic: Any) -> Any:
        return functional.to_tensor(pic)


class _Transform(Module):
    """A transform that is a module, as PyTorch's: it can stand in nn.Sequential."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.__dict__.update(settings)


class Normalize(_Transform):
    """Shift and scale each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        super().__init__(mean=mean, std=std, inplace=inplace)

    def forward(self, tensor: Any) -> Any:
        """The normalised tensor."""
        return functional.normalize(tensor, self.mean, self.std, self.inplace)


class Resize(_Transform):
    """Another size."""

    def __init__(self, size: int | Sequence[int], interpolation: Any = InterpolationMode.BILINEAR,
                 max_size: int | None = None, antialias: bool = True) -> None:
        super().__init__(size=size, interpolation=interpolation, antialias=antialias)

    def forward(self, img: Any) -> Any:
        """The resized image."""
        return functional.resize(img, self.size, self.interpolation, antialias=self.antialias)


class CenterCrop(_Transform):
    """The part in the middle."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__(size=size)

    def forward(self, img: Any) -> Any:
        """The part."""
        return functional.center_crop(img, self.size)


class RandomCrop(_Transform):
    """A part anywhere, of the image padded by `padding`."""

    def __init__(self, size: int | Sequence[int], padding: Any = None) -> None:
        super().__init__(size=(size, size) if isinstance(size, int) else tuple(size),
                         padding=padding)

    def forward(self, img: Any) -> Any:
        """The part."""
        if self.padding is not None:
            img = functional.pad(img, self.padding)
        height, width = functional.get_size(img)
        top = random.randint(0, height - self.size[0])
        return functional.crop(img, top, random.randint(0, width - self.size[1]), *self.size)


class _Chance(_Transform):
    """Something done with a probability."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)

    def change(self, img: Any) -> Any:
        """What is done."""
        raise NotImplementedError

    def forward(self, img: Any) -> Any:
        """The image, changed or not."""
        return self.change(img) if random.random() < self.p else img


class RandomHorizontalFlip(_Chance):
    """Left and right exchanged, with a probability."""

    def change(self, img: Any) -> Any:
        """The mirrored image."""
        return functional.hflip(img)


class RandomVerticalFlip(_Chance):
    """Top and bottom exchanged, with a probability."""

    def change(self, img: Any) -> Any:
        """The mirrored image."""
        return functional.vflip(img)


class Grayscale(_Transform):
    """The luminance."""

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__(num_output_channels=num_output_channels)

    def forward(self, img: Any) -> Any:
        """The grey image."""
        return functional.rgb_to_grayscale(img, self.num_output_channels)


class RandomGrayscale(_Chance):
    """Grey in three channels, with a probability."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(p)

    def change(self, img: Any) -> Any:
        """The grey image."""
        return functional.rgb_to_grayscale(img, 3)


class RandomApply(_Chance):
    """Several transforms, all or none."""

    def __init__(self, transforms: Any, p: float = 0.5) -> None:
        super().__init__(p)
        self.__dict__["transforms"] = transforms

    def change(self, img: Any) -> Any:
        """The image after all of them."""
        return Compose(list(self.transforms))(img)


class ColorJitter(_Transform):
    """Brightness, contrast, saturation and hue changed by random factors, in random order.

    Of a tensor.  A number x stands for the range 1 - x to 1 + x, for the hue -x to x.
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0
                 ) -> None:
        super().__init__(brightness=_range(brightness, 1), contrast=_range(contrast, 1),
                         saturation=_range(saturation, 1), hue=_range(hue, 0))

    def forward(self, img: Any) -> Any:
        """The image in other colours."""
        changes: list[tuple[Any, tuple[float, float]]] = [
            (functional.adjust_brightness, self.brightness),
            (functional.adjust_contrast, self.contrast),
            (functional.adjust_saturation, self.saturation), (functional.adjust_hue, self.hue)]
        random.shuffle(changes)
        for change, (low, high) in changes:
            if low != high:
                img = change(img, random.uniform(low, high))
        return img


def _range(value: Any, middle: float) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        return max(middle - value, 0.0) if middle else -value, middle + value
    return tuple(value)


class GaussianBlur(_Transform):
    """A tensor blurred with a random standard deviation."""

    def __init__(self, kernel_size: int | Sequence[int], sigma: Any = (0.1, 2.0)) -> None:
        super().__init__(kernel_size=kernel_size,
                         sigma=(sigma, sigma) if isinstance(sigma, (int, float)) else sigma)

    def forward(self, img: Any) -> Any:
        """The blurred image."""
        return functional.gaussian_blur(img, self.kernel_size, random.uniform(*self.sigma))


class RandomResizedCrop(_Transform):
    """A part of random area and aspect, resized."""

    def __init__(self, size: int | Sequence[int], scale: tuple[float, float] = (0.08, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3),
                 interpolation: Any = InterpolationMode.BILINEAR, antialias: bool = True) -> None:
        super().__init__(size=(size, size) if isinstance(size, int) else tuple(size), scale=scale,
                         ratio=ratio, interpolation=interpolation, antialias=antialias)

    def forward(self, img: Any) -> Any:
        """The part in its new size."""
        height, width = functional.get_size(img)
        high, wide = min(height, width), min(height, width)  # where ten tries find nothing
        for _ in range(10):
            area = height * width * random.uniform(*self.scale)
            aspect = math.exp(random.uniform(*map(math.log, self.ratio)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                high, wide = h, w
                break
        part = functional.crop(img, random.randint(0, height - high),
                               random.randint(0, width - wide), high, wide)
        return functional.resize(part, self.size, self.interpolation, antialias=self.antialias)
