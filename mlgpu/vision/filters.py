"""Filters of images (..., h, w): every plane by itself, differentiable but for `canny`.

Kernels are laid on each element by their middle, (kh // 2, kw // 2), and not turned around:
correlation, as in deep learning and in OpenCV.  `border` says how the image goes on: "reflect"
without repeating the edge, "replicate", "circular", or "constant" with `value`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.autograd.mode import no_grad
from mlgpu.dtypes import DTypeLike, float32
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.arithmetic import abs
from mlgpu.ops.choice import where
from mlgpu.ops.compare import logical_and
from mlgpu.ops.components import ConnectedComponents
from mlgpu.ops.conv import conv2d
from mlgpu.ops.creation import arange, tensor
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import sqrt
from mlgpu.ops.extrema import median
from mlgpu.ops.pool import avg_pool2d
from mlgpu.ops.search import bincount
from mlgpu.tensor import Tensor
from mlgpu.vision.border import padded

__all__ = ["box_blur", "canny", "filter2d", "filter2d_separable", "gaussian_blur",
           "gaussian_kernel1d", "laplacian", "median_blur", "sobel", "spatial_gradient"]

Size = int | Sequence[int]


def _pair(name: str, size: Size) -> tuple[int, int]:
    """Height and width of a kernel."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ShapeError(f"{name}: kernel_size must be positive, got {size}")
    return int(height), int(width)


def _planes(name: str, input: Tensor, size: tuple[int, int], border: str, value: float) -> Tensor:
    """The planes as (planes, 1, h, w), with as much more as a kernel of a size reaches."""
    if input.ndim < 2 or 0 in input.shape[-2:]:
        raise ShapeError(f"{name}: expected images (..., h, w), not empty, got "
                         f"{tuple(input.shape)}")
    if not input.is_floating_point():
        raise DTypeError(f"{name}: expected a floating image, got {input.dtype.name}; convert with "
                         ".float()")
    height, width = size
    planes = input.reshape(math.prod(input.shape[:-2]), 1, *input.shape[-2:])
    sides = (width // 2, (width - 1) // 2, height // 2, (height - 1) // 2)
    return padded(name, planes, sides, border, value)


def _kernel(name: str, kernel: Tensor, axes: int, like: Tensor, normalized: bool) -> Tensor:
    """The kernel in the image's dtype."""
    if kernel.ndim != axes or 0 in kernel.shape:
        raise ShapeError(f"{name}: a kernel must be {('(k,)', '(kh, kw)')[axes - 1]}, not empty, "
                         f"got {tuple(kernel.shape)}")
    kernel = kernel.to(like.dtype)
    return kernel / kernel.abs().sum() if normalized else kernel


def filter2d(input: Tensor, kernel: Tensor, border: str = "reflect", value: float = 0.0,
             normalized: bool = False) -> Tensor:
    """The sum of each element's neighbours times a kernel (kh, kw), of the input's size.

    With `normalized` the kernel is divided by the sum of its magnitudes.  Both have gradients.
    Raises ShapeError, DTypeError.
    """
    _kernel("filter2d", kernel, 2, input, False)
    planes = _planes("filter2d", input, (kernel.shape[0], kernel.shape[1]), border, value)
    taps = _kernel("filter2d", kernel, 2, input, normalized)
    return conv2d(planes, taps[None, None]).reshape(input.shape)


def filter2d_separable(input: Tensor, kernel_y: Tensor, kernel_x: Tensor, border: str = "reflect",
                       value: float = 0.0, normalized: bool = False) -> Tensor:
    """`filter2d` by the product of a column (kh,) and a row (kw,), one after the other."""
    return _separable("filter2d_separable", input, kernel_y, kernel_x, border, value, normalized)


def _separable(name: str, input: Tensor, kernel_y: Tensor, kernel_x: Tensor, border: str,
               value: float, normalized: bool = False) -> Tensor:
    column, row = (_kernel(name, k, 1, input, normalized) for k in (kernel_y, kernel_x))
    planes = _planes(name, input, (len(column), len(row)), border, value)
    lines = conv2d(planes, row[None, None, None])
    return conv2d(lines, column[None, None, :, None]).reshape(input.shape)


# --- smoothing ------------------------------------------------------------------------------------


def gaussian_kernel1d(kernel_size: int, sigma: float, dtype: DTypeLike = float32,
                      device: Any = None) -> Tensor:
    """The normal density at `kernel_size` places one apart, their mean in the middle; sum 1."""
    if kernel_size < 1 or not sigma > 0:
        raise ShapeError("gaussian_kernel1d: kernel_size and sigma must be positive, got "
                         f"{kernel_size} and {sigma}")
    density = np.exp(-0.5 * ((np.arange(kernel_size) - (kernel_size - 1) / 2) / sigma) ** 2)
    return tensor(density / density.sum(), dtype=dtype, device=device)


def gaussian_blur(input: Tensor, kernel_size: Size, sigma: float | Sequence[float] | None = None,
                  border: str = "reflect", value: float = 0.0) -> Tensor:
    """The mean of neighbours weighted by a normal density; sizes and sigmas are (height, width).

    sigma: by default 0.15 kernel_size + 0.35, as in torchvision.  Raises ShapeError, DTypeError.
    """
    size = _pair("gaussian_blur", kernel_size)
    if sigma is None:
        sigma = [0.15 * each + 0.35 for each in size]
    sigmas = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    column, row = (gaussian_kernel1d(n, s, input.dtype, input.device)
                   for n, s in zip(size, sigmas, strict=True))
    return _separable("gaussian_blur", input, column, row, border, value)


def box_blur(input: Tensor, kernel_size: Size, border: str = "reflect", value: float = 0.0
             ) -> Tensor:
    """The mean of kernel_size (height, width) neighbours.  Raises ShapeError, DTypeError."""
    size = _pair("box_blur", kernel_size)
    planes = _planes("box_blur", input, size, border, value)
    return avg_pool2d(planes, size, stride=1).reshape(input.shape)


def median_blur(input: Tensor, kernel_size: Size, border: str = "reflect", value: float = 0.0
                ) -> Tensor:
    """The median of kernel_size (height, width) neighbours, the lower one of an even number.

    Takes memory for all neighbours of all elements.  The gradient goes to the element that is the
    median.  Raises ShapeError, DTypeError.
    """
    size = _pair("median_blur", kernel_size)
    planes = _planes("median_blur", input, size, border, value)
    windows = planes.unfold(-2, size[0], 1).unfold(-2, size[1], 1)
    found: Tensor = median(windows.flatten(-2), -1)[0]
    return found.reshape(input.shape)


# --- edges ----------------------------------------------------------------------------------------

# Smoothing across, and the difference along, divided by what a ramp of slope 1 gives.
SLOPES = {"sobel": ((1.0, 2.0, 1.0), 8.0), "scharr": ((3.0, 10.0, 3.0), 32.0),
          "central": ((0.0, 1.0, 0.0), 2.0)}


def spatial_gradient(input: Tensor, mode: str = "sobel", border: str = "replicate",
                     value: float = 0.0, normalized: bool = True) -> tuple[Tensor, Tensor]:
    """The slopes along x and along y, each of the input's size.

    mode: "sobel", "scharr" (both smooth across) or "central" differences; with `normalized` a ramp
    of slope 1 has slope 1, else kernels are of whole numbers.  Raises ShapeError, DTypeError.
    """
    if mode not in SLOPES:
        raise ShapeError(f"spatial_gradient: mode must be one of {', '.join(SLOPES)}, got {mode!r}")
    across, divisor = SLOPES[mode]
    options: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
    smooth = tensor(across, **options)
    slope = tensor([-1.0, 0.0, 1.0], **options) / (divisor if normalized else 1.0)
    return (_separable("spatial_gradient", input, smooth, slope, border, value),
            _separable("spatial_gradient", input, slope, smooth, border, value))


@elementwise
def _length(x: Any, y: Any, eps: Any) -> Tensor:
    return sqrt(x * x + y * y + eps)


def sobel(input: Tensor, border: str = "replicate", value: float = 0.0, normalized: bool = True,
          eps: float = 1e-6) -> Tensor:
    """sqrt(dx^2 + dy^2 + eps) of `spatial_gradient`: how steep the image is.

    `eps` keeps the gradient finite where it is flat.  Raises ShapeError, DTypeError.
    """
    return _length(*spatial_gradient(input, "sobel", border, value, normalized), eps)


def laplacian(input: Tensor, diagonal: bool = False, border: str = "replicate", value: float = 0.0
              ) -> Tensor:
    """The sum of the differences to the 4 neighbours, with `diagonal` to all 8."""
    corner = 1.0 if diagonal else 0.0
    rows = [[corner, 1.0, corner], [1.0, -8.0 if diagonal else -4.0, 1.0], [corner, 1.0, corner]]
    return filter2d(input, tensor(rows, dtype=input.dtype, device=input.device), border, value)


STEEP = math.tan(math.pi / 8)  # from here on a slope counts as diagonal


@elementwise
def _ridge(m: Any, x: Any, y: Any, north: Any, south: Any, west: Any, east: Any, northwest: Any,
           southeast: Any, northeast: Any, southwest: Any) -> Any:
    """Whether m is the largest along the slope (x, y)."""
    flat, steep = abs(y) < STEEP * abs(x), abs(x) < STEEP * abs(y)
    falling = x * y > 0
    before = where(flat, west, where(steep, north, where(falling, northwest, northeast)))
    after = where(flat, east, where(steep, south, where(falling, southeast, southwest)))
    return logical_and(m > before, m >= after)


def canny(input: Tensor, low_threshold: float = 0.1, high_threshold: float = 0.2,
          kernel_size: Size = 5, sigma: float | Sequence[float] = 1.0) -> Tensor:
    """Edges of images (..., h, w) by Canny (1986): bool, without a gradient.

    Where `gaussian_blur`'s steepness is a maximum along its slope and above `low_threshold`, and it
    is connected to such a place above `high_threshold`.  Raises ShapeError, DTypeError.
    """
    if not 0 <= low_threshold <= high_threshold:
        raise ShapeError("canny: thresholds must be 0 <= low <= high, got "
                         f"{low_threshold} and {high_threshold}")
    with no_grad():
        x, y = spatial_gradient(gaussian_blur(input, kernel_size, sigma))
        steep = _length(x, y, 0.0)
        height, width = steep.shape[-2:]
        wide = padded("canny", steep, (1, 1, 1, 1), "constant")
        around = [wide[..., 1 + j:1 + j + height, 1 + i:1 + i + width] for j, i in (
            (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1))]
        ridge = _ridge(steep, x, y, *around)
        weak, strong = ((ridge & (steep > t)).reshape(-1, height, width)
                        for t in (low_threshold, high_threshold))
        labels, counts = run(ConnectedComponents(True), weak)
        kinds = 1 + (int(counts.max().item()) if len(counts) else 0)
        slots = labels + arange(len(labels), device=labels.device)[:, None, None] * kinds
        seen = bincount(where(strong, slots, 0).flatten(), minlength=max(1, len(labels) * kinds))
        found: Tensor = (weak & (seen[slots] > 0)).reshape(input.shape)
        return found
