"""Images moved by matrices, differentiable in both.

A matrix (3, 3) takes homogeneous places (x, y, 1) of the image to places of the result, in pixels:
the middle of the first one is (0, 0), x goes to the right and y down.  `@` composes: the right one
is applied first.  Angles are degrees, positive from x to y, which is clockwise as images are seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.dtypes import compute_dtype
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.linalg import solve
from mlgpu.ops.creation import arange, ones_like, tensor, zeros_like
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.grid_sample import MODES, PADDINGS, grid_sample
from mlgpu.ops.join import cat, stack
from mlgpu.ops.trigonometry import cos, deg2rad, sin, tan
from mlgpu.ops.view import broadcast_tensors
from mlgpu.tensor import Tensor

__all__ = ["affine", "get_affine_matrix2d", "get_perspective_transform", "perspective", "rotate",
           "rotation_matrix", "scale_matrix", "shear_matrix", "translation_matrix", "warp_affine",
           "warp_perspective"]

Number = float | Tensor
Point = Sequence[Number]
Fill = float | Sequence[float] | None


# --- matrices -------------------------------------------------------------------------------------


def _numbers(*values: Number) -> list[Tensor]:
    """Numbers and tensors of batches as tensors of one shape, dtype and device."""
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is not None and not like.is_floating_point():
        raise DTypeError(f"matrix: expected floating numbers, got {like.dtype.name}")
    made = [v if isinstance(v, Tensor) else
            tensor(float(v)) if like is None else tensor(float(v), dtype=like.dtype,
                                                         device=like.device) for v in values]
    return list(broadcast_tensors(*made))


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return stack([stack(list(row), -1) for row in rows], -2)


def _about(center: Point, linear: Sequence[Sequence[Tensor]]) -> Tensor:
    """A linear map (2, 2) that leaves the centre where it is."""
    (a, b), (c, d) = linear
    a, b, c, d, x, y = _numbers(a, b, c, d, *center)
    zero, one = zeros_like(a), ones_like(a)
    return _matrix([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [zero, zero, one]])


def translation_matrix(x: Number, y: Number) -> Tensor:
    """By x and y pixels: (3, 3), or (..., 3, 3) of tensors (...)."""
    x, y = _numbers(x, y)
    zero, one = zeros_like(x), ones_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def scale_matrix(x: Number, y: Number | None = None, center: Point = (0.0, 0.0)) -> Tensor:
    """x and y times as large about a centre; y is x where it is not given."""
    x, y = _numbers(x, x if y is None else y)
    return _about(center, [[x, zeros_like(x)], [zeros_like(x), y]])


def rotation_matrix(angle: Number, center: Point = (0.0, 0.0)) -> Tensor:
    """By an angle in degrees about a centre, clockwise as images are seen."""
    [turn] = _numbers(angle)
    c, s = cos(deg2rad(turn)), sin(deg2rad(turn))
    return _about(center, [[c, -s], [s, c]])


def shear_matrix(x: Number, y: Number = 0.0, center: Point = (0.0, 0.0)) -> Tensor:
    """By angles in degrees: first x against y, then y against x, as torchvision's `shear`."""
    along, down = (tan(deg2rad(angle)) for angle in _numbers(x, y))
    return _about(center, [[ones_like(along), -along], [-down, 1 + along * down]])


def get_affine_matrix2d(translate: Point = (0.0, 0.0), center: Point = (0.0, 0.0),
                        scale: Number | Point = 1.0, angle: Number = 0.0,
                        shear: Point = (0.0, 0.0)) -> Tensor:
    """Scaled, sheared and turned about a centre, then moved: (..., 3, 3)."""
    wide, high = (scale, scale) if isinstance(scale, (int, float, Tensor)) else scale
    right, below, x, y, wide, high, turn, across, down = _numbers(
        *translate, *center, wide, high, angle, *shear)
    return (translation_matrix(right, below) @ rotation_matrix(turn, (x, y))
            @ shear_matrix(across, down, (x, y)) @ scale_matrix(wide, high, (x, y)))


def get_perspective_transform(points_src: Tensor, points_dst: Tensor) -> Tensor:
    """The matrix (..., 3, 3) that takes four points (..., 4, 2) to four others.

    Raises ShapeError, and LinAlgError where three of them lie on a line.
    """
    if points_src.shape != points_dst.shape or tuple(points_src.shape[-2:]) != (4, 2):
        raise ShapeError("get_perspective_transform: expected points (..., 4, 2) twice, got "
                         f"{tuple(points_src.shape)} and {tuple(points_dst.shape)}")
    x, y = points_src.unbind(-1)
    u, v = points_dst.unbind(-1)
    zero, one = zeros_like(x), ones_like(x)
    rows = cat([stack([x, y, one, zero, zero, zero, -x * u, -y * u], -1),
                stack([zero, zero, zero, x, y, one, -x * v, -y * v], -1)], -2)
    found = solve(rows, cat([u, v], -1))
    return cat([found, one[..., :1]], -1).unflatten(-1, (3, 3))


# --- images ---------------------------------------------------------------------------------------


def warp_affine(src: Tensor, M: Tensor, dsize: Sequence[int], mode: str = "bilinear",
                padding_mode: str = "zeros", fill: Fill = None) -> Tensor:
    """Images (n, c, h, w) moved by (n, 2, 3) or (2, 3), onto a canvas of `dsize` (height, width).

    mode: bilinear, nearest or bicubic.  Beyond the image there is 0, or `fill` (a number, or one
    for each channel), or with padding_mode "border" its edge, with "reflection" its mirror image.
    Half types are computed in float32.  A matrix without an inverse leaves nothing of the image.
    Raises ShapeError, DTypeError.
    """
    if M.ndim < 2 or tuple(M.shape[-2:]) not in ((2, 3), (3, 3)):
        raise ShapeError(f"warp_affine: M must be (n, 2, 3), got {tuple(M.shape)}")
    last = tensor([[0.0, 0.0, 1.0]], dtype=M.dtype, device=M.device)
    whole = cat([M[..., :2, :], last.expand(*M.shape[:-2], 1, 3)], -2)
    return _warp("warp_affine", src, whole, dsize, mode, padding_mode, fill)


def warp_perspective(src: Tensor, M: Tensor, dsize: Sequence[int], mode: str = "bilinear",
                     padding_mode: str = "zeros", fill: Fill = None) -> Tensor:
    """`warp_affine` by matrices (n, 3, 3) or (3, 3), whose last row divides."""
    if M.ndim < 2 or tuple(M.shape[-2:]) != (3, 3):
        raise ShapeError(f"warp_perspective: M must be (n, 3, 3), got {tuple(M.shape)}")
    return _warp("warp_perspective", src, M, dsize, mode, padding_mode, fill)


@elementwise
def _adjugate(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    return (e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g,
            c * d - a * f, d * h - e * g, b * g - a * h, a * e - b * d)


@elementwise
def _places(x: Any, y: Any, width: Any, height: Any, a: Any, b: Any, c: Any, d: Any, e: Any,
            f: Any, g: Any, h: Any, i: Any) -> Any:
    """Where a matrix takes (x, y), as grid_sample measures: -1 and 1 are the image's edges, half an
    element off the centres."""
    w = g * x + h * y + i
    return ((2 * (a * x + b * y + c) / w + 1) / width - 1,
            (2 * (d * x + e * y + f) / w + 1) / height - 1)


def _grid(M: Tensor, dsize: Sequence[int], size: Sequence[int]) -> Tensor:
    """Where elements of the result come from in an image of a size: (n, rows, columns, 2).

    The inverse of M is its adjugate but for a factor, which homogeneous places do not have.  There
    is one where there is no inverse, too: it takes places to where there is nothing.
    """
    rows, columns = dsize
    height, width = size
    back = _adjugate(*M.flatten(-2).unbind(-1))
    x = arange(columns, dtype=M.dtype, device=M.device)
    y = arange(rows, dtype=M.dtype, device=M.device)[:, None]
    return stack(_places(x, y, width, height, *(part[..., None, None] for part in back)), -1)


def _warp(name: str, src: Tensor, M: Tensor, dsize: Sequence[int], mode: str, padding_mode: str,
          fill: Fill) -> Tensor:
    if src.ndim != 4 or 0 in src.shape[2:] or M.ndim > 3 or (
            M.ndim == 3 and len(M) not in (1, len(src))):
        raise ShapeError(f"{name}: expected images (n, c, h, w) and a matrix for each, got "
                         f"{tuple(src.shape)} and {tuple(M.shape)}")
    if mode not in MODES or padding_mode not in PADDINGS:
        raise ShapeError(f"{name}: mode must be one of {', '.join(MODES)} and padding_mode one of "
                         f"{', '.join(PADDINGS)}, got {mode!r} and {padding_mode!r}")
    if not src.is_floating_point():
        raise DTypeError(f"{name}: expected floating images, got {src.dtype.name}; convert with "
                         ".float()")
    if fill is not None and padding_mode != "zeros":
        raise ShapeError(f"{name}: fill goes with padding_mode 'zeros', got {padding_mode!r}")
    wide = src.to(compute_dtype(src.dtype))
    grid = _grid(M.to(wide.dtype), dsize, src.shape[2:]).expand(len(src), *dsize, 2)
    if fill is None:
        moved = grid_sample(wide, grid, mode, padding_mode, align_corners=False)
    else:
        level = tensor(fill, dtype=wide.dtype, device=wide.device).reshape(-1, 1, 1)
        moved = grid_sample(wide - level, grid, mode, padding_mode, align_corners=False) + level
    return moved.to(src.dtype)


def _moved(name: str, img: Tensor, matrix: Tensor, dsize: Sequence[int], interpolation: str,
           fill: Fill) -> Tensor:
    """An image (..., c, h, w) moved by one matrix."""
    if img.ndim < 3:
        raise ShapeError(f"{name}: expected an image (..., c, h, w), got {tuple(img.shape)}")
    flat = img.reshape(math.prod(img.shape[:-3]), *img.shape[-3:])
    moved = _warp(name, flat, matrix.to(img.device), dsize, interpolation, "zeros", fill)
    return moved.reshape(*img.shape[:-2], *dsize)


def _middle(img: Tensor, center: Sequence[float] | None) -> tuple[float, float]:
    """The centre in pixels; `center` is measured from the image's corner, as in torchvision."""
    height, width = img.shape[-2:]
    x, y = (width / 2, height / 2) if center is None else center
    return x - 0.5, y - 0.5


def affine(img: Tensor, angle: Number, translate: Point, scale: Number, shear: Number | Point,
           interpolation: str = "nearest", fill: Fill = None,
           center: Sequence[float] | None = None) -> Tensor:
    """An image (..., c, h, w) scaled, sheared and turned (clockwise) about its centre, then moved.

    As torchvision's functional.affine; numbers may be tensors (), with gradients.
    """
    both = (shear, 0.0) if isinstance(shear, (int, float, Tensor)) else shear
    matrix = get_affine_matrix2d(translate, _middle(img, center), scale, angle, both)
    return _moved("affine", img, matrix, img.shape[-2:], interpolation, fill)


def rotate(img: Tensor, angle: float, interpolation: str = "nearest", expand: bool = False,
           center: Sequence[float] | None = None, fill: Fill = None) -> Tensor:
    """An image (..., c, h, w) turned about its centre, counter-clockwise as it is seen.

    With `expand` the result is as large as all of it needs.  As torchvision's functional.rotate.
    """
    matrix = rotation_matrix(-angle, _middle(img, center))
    height, width = img.shape[-2:]
    if not expand:
        return _moved("rotate", img, matrix, (height, width), interpolation, fill)
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    rows, columns = (math.ceil(room - 1e-3) for room in (height * c + width * s,
                                                         width * c + height * s))
    # The new middle is where the old one was.
    matrix = translation_matrix((columns - width) / 2, (rows - height) / 2) @ matrix
    return _moved("rotate", img, matrix, (rows, columns), interpolation, fill)


def perspective(img: Tensor, startpoints: Sequence[Point], endpoints: Sequence[Point],
                interpolation: str = "bilinear", fill: Fill = None) -> Tensor:
    """An image (..., c, h, w) moved so that four of its points come to lie on four others.

    As torchvision's functional.perspective.
    """
    start, end = (stack([stack(_numbers(*p)) for p in points])
                  for points in (startpoints, endpoints))
    matrix = get_perspective_transform(start, end)
    return _moved("perspective", img, matrix, img.shape[-2:], interpolation, fill)
