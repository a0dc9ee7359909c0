"""Colour spaces of images (..., 3, h, w), each a pass over memory with exact derivatives.

`rgb` is sRGB as files have it, red, green and blue from 0 to 1, with the standard's curve of
brightness; `linear_rgb` is without it.  Hues are fractions of a turn, [0, 1).

- sRGB: IEC 61966-2-1:1999, its primaries and its white D65.
- XYZ, L*a*b*, L*u*v*: CIE 15:2004, Y of white 1, two-degree observer.
- YUV: ITU-R BT.470 with the luma of BT.601-7.  YCbCr: JFIF 1.02 (ITU-T T.871), all values 0 to 1.
- HSV, HSL: Smith 1978; Joblove and Greenberg 1978.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.arithmetic import abs, remainder
from mlgpu.ops.choice import clamp, maximum, minimum, where
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import pow
from mlgpu.ops.join import stack
from mlgpu.ops.rounding import floor
from mlgpu.tensor import Tensor

__all__ = ["grayscale_to_rgb", "hsl_to_rgb", "hsv_to_rgb", "lab_to_rgb", "linear_rgb_to_rgb",
           "luv_to_rgb", "rgb_to_grayscale", "rgb_to_hsl", "rgb_to_hsv", "rgb_to_lab",
           "rgb_to_linear_rgb", "rgb_to_luv", "rgb_to_xyz", "rgb_to_ycbcr", "rgb_to_yuv",
           "xyz_to_rgb", "ycbcr_to_rgb", "yuv_to_rgb"]

Matrix = Sequence[Sequence[float]]


def _matrix(rows: Matrix) -> tuple[Matrix, Matrix]:
    """A matrix and its inverse, as numbers for expressions."""
    return rows, np.linalg.inv(np.array(rows)).tolist()


TO_XYZ, FROM_XYZ = _matrix([[0.4124, 0.3576, 0.1805],
                            [0.2126, 0.7152, 0.0722],
                            [0.0193, 0.1192, 0.9505]])
WHITE = tuple(sum(row) for row in TO_XYZ)  # so that white has neither a nor b, neither u nor v
LUMA = 0.299, 0.587, 0.114
# U = 0.492 (B - Y) and V = 0.877 (R - Y); Cb and Cr reach from -1/2 to 1/2.
TO_YUV, FROM_YUV = _matrix([LUMA, [-0.492 * r for r in LUMA[:2]] + [0.492 * (1 - LUMA[2])],
                            [0.877 * (1 - LUMA[0])] + [-0.877 * r for r in LUMA[1:]]])
TO_YCC, FROM_YCC = _matrix([LUMA, [-r / 1.772 for r in LUMA[:2]] + [0.5],
                            [0.5] + [-r / 1.402 for r in LUMA[1:]]])
DELTA = 6 / 29  # CIE 15: below its cube the cube root is continued by a line
KAPPA = (29 / 3) ** 3  # L* per Y there


def _converted(name: str, image: Tensor, function: Callable[..., Any]) -> Tensor:
    """The channels of an image through an elementwise function."""
    _check(name, image, 3)
    return stack(function(*image.unbind(-3)), -3)


def _check(name: str, image: Tensor, channels: int) -> None:
    if image.ndim < 3 or image.shape[-3] != channels:
        raise ShapeError(f"{name}: expected an image (..., {channels}, h, w), got "
                         f"{tuple(image.shape)}")
    if not image.is_floating_point():
        raise DTypeError(f"{name}: expected a floating image, got {image.dtype.name}; of bytes "
                         "take image.float() / 255")


def _times(matrix: Matrix, x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    return tuple(a * x + b * y + c * z for a, b, c in matrix)


# --- brightness -----------------------------------------------------------------------------------


def _linear(x: Any) -> Any:
    low = x <= 0.04045
    return where(low, x / 12.92, pow((where(low, 1, x) + 0.055) / 1.055, 2.4))


def _curved(x: Any) -> Any:
    low = x <= 0.0031308
    return where(low, 12.92 * x, 1.055 * pow(where(low, 1, x), 1 / 2.4) - 0.055)


@elementwise
def _rgb_to_linear(x: Any) -> Tensor:
    found: Tensor = _linear(x)
    return found


@elementwise
def _linear_to_rgb(x: Any) -> Tensor:
    found: Tensor = _curved(x)
    return found


def rgb_to_linear_rgb(image: Tensor) -> Tensor:
    """sRGB without its curve: values in proportion to light (IEC 61966-2-1)."""
    _check("rgb_to_linear_rgb", image, 3)
    return _rgb_to_linear(image)


def linear_rgb_to_rgb(image: Tensor) -> Tensor:
    """Values in proportion to light as sRGB (IEC 61966-2-1)."""
    _check("linear_rgb_to_rgb", image, 3)
    return _linear_to_rgb(image)


@elementwise
def _luma(r: Any, g: Any, b: Any) -> Tensor:
    found: Tensor = LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
    return found


def rgb_to_grayscale(image: Tensor) -> Tensor:
    """The luma 0.299 R + 0.587 G + 0.114 B (BT.601): (..., 3, h, w) to (..., 1, h, w)."""
    _check("rgb_to_grayscale", image, 3)
    return _luma(*image.unbind(-3)).unsqueeze(-3)


def grayscale_to_rgb(image: Tensor) -> Tensor:
    """One channel as three equal ones: (..., 1, h, w) to (..., 3, h, w), of any dtype."""
    if image.ndim < 3 or image.shape[-3] != 1:
        raise ShapeError("grayscale_to_rgb: expected an image (..., 1, h, w), got "
                         f"{tuple(image.shape)}")
    return image.expand(*image.shape[:-3], 3, *image.shape[-2:]).clone()


# --- hue ------------------------------------------------------------------------------------------


def _hue(r: Any, g: Any, b: Any, most: Any, chroma: Any) -> Any:
    """In turns; 0 where there is no colour."""
    safe = where(chroma == 0, 1, chroma)
    sixth = where(most == r, (g - b) / safe,
                  where(most == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    turn = sixth / 6
    return where(chroma == 0, 0, turn - floor(turn))


@elementwise
def _to_hsv(r: Any, g: Any, b: Any) -> Any:
    most = maximum(maximum(r, g), b)
    chroma = most - minimum(minimum(r, g), b)
    return (_hue(r, g, b, most, chroma),
            where(most == 0, 0, chroma / where(most == 0, 1, most)), most)


@elementwise
def _from_hsv(h: Any, s: Any, v: Any) -> Any:
    def part(shift: float) -> Any:
        k = remainder(shift + 6 * h, 6)
        return v - v * s * clamp(minimum(k, 4 - k), 0, 1)

    return part(5), part(3), part(1)


@elementwise
def _to_hsl(r: Any, g: Any, b: Any) -> Any:
    most, least = maximum(maximum(r, g), b), minimum(minimum(r, g), b)
    chroma = most - least
    room = 1 - abs(most + least - 1)  # the largest chroma at this lightness
    return (_hue(r, g, b, most, chroma), where(room == 0, 0, chroma / where(room == 0, 1, room)),
            (most + least) / 2)


@elementwise
def _from_hsl(h: Any, s: Any, lightness: Any) -> Any:
    reach = s * minimum(lightness, 1 - lightness)

    def part(shift: float) -> Any:
        k = remainder(shift + 12 * h, 12)
        return lightness - reach * clamp(minimum(k - 3, 9 - k), -1, 1)

    return part(0), part(8), part(4)


def rgb_to_hsv(image: Tensor) -> Tensor:
    """Hue, saturation, value, each 0 to 1 (Smith 1978).  Greys have hue 0, black saturation 0."""
    return _converted("rgb_to_hsv", image, _to_hsv)


def hsv_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`, for any hue: whole turns make no difference."""
    return _converted("hsv_to_rgb", image, _from_hsv)


def rgb_to_hsl(image: Tensor) -> Tensor:
    """Hue, saturation, lightness, each 0 to 1 (Joblove and Greenberg 1978).  Greys have hue 0."""
    return _converted("rgb_to_hsl", image, _to_hsl)


def hsl_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsl`, for any hue: whole turns make no difference."""
    return _converted("hsl_to_rgb", image, _from_hsl)


# --- CIE ------------------------------------------------------------------------------------------


def _xyz(r: Any, g: Any, b: Any) -> tuple[Any, ...]:
    return _times(TO_XYZ, _linear(r), _linear(g), _linear(b))


def _rgb(x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    return tuple(_curved(part) for part in _times(FROM_XYZ, x, y, z))


@elementwise
def _to_xyz(r: Any, g: Any, b: Any) -> Any:
    return _xyz(r, g, b)


@elementwise
def _from_xyz(x: Any, y: Any, z: Any) -> Any:
    return _rgb(x, y, z)


def _root(t: Any) -> Any:
    low = t <= DELTA ** 3
    return where(low, t / (3 * DELTA ** 2) + 4 / 29, pow(where(low, 1, t), 1 / 3))


def _cube(f: Any) -> Any:
    return where(f <= DELTA, 3 * DELTA ** 2 * (f - 4 / 29), f * f * f)


@elementwise
def _to_lab(r: Any, g: Any, b: Any) -> Any:
    x, y, z = (_root(part / white) for part, white in zip(_xyz(r, g, b), WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@elementwise
def _from_lab(lightness: Any, a: Any, b: Any) -> Any:
    y = (lightness + 16) / 116
    return _rgb(*(_cube(f) * white
                  for f, white in zip((y + a / 500, y, y - b / 200), WHITE, strict=True)))


_SUM = WHITE[0] + 15 * WHITE[1] + 3 * WHITE[2]
WHITE_U, WHITE_V = 4 * WHITE[0] / _SUM, 9 * WHITE[1] / _SUM


@elementwise
def _to_luv(r: Any, g: Any, b: Any) -> Any:
    x, y, z = _xyz(r, g, b)
    total = x + 15 * y + 3 * z
    black = total == 0
    # Of black exactly 0, not what rounding leaves of 16 - 16: there is no hue beside it.
    lightness = where(black, 0, 116 * _root(y / WHITE[1]) - 16)
    safe = where(black, 1, total)
    return (lightness, 13 * lightness * (4 * x / safe - WHITE_U),
            13 * lightness * (9 * y / safe - WHITE_V))


@elementwise
def _from_luv(lightness: Any, u: Any, v: Any) -> Any:
    black = lightness == 0
    scale = 13 * where(black, 1, lightness)
    hue_u, hue_v = u / scale + WHITE_U, v / scale + WHITE_V
    y = WHITE[1] * _cube((lightness + 16) / 116)
    x = y * 9 * hue_u / (4 * hue_v)
    z = y * (12 - 3 * hue_u - 20 * hue_v) / (4 * hue_v)
    return tuple(where(black, 0, part) for part in _rgb(x, y, z))


def rgb_to_xyz(image: Tensor) -> Tensor:
    """CIE XYZ, where white (1, 1, 1) has Y = 1 (IEC 61966-2-1)."""
    return _converted("rgb_to_xyz", image, _to_xyz)


def xyz_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_xyz`; colours that a display lacks lie outside 0 to 1."""
    return _converted("xyz_to_rgb", image, _from_xyz)


def rgb_to_lab(image: Tensor) -> Tensor:
    """CIE L*a*b*: lightness 0 to 100, and about -128 to 127 (CIE 15:2004, white D65)."""
    return _converted("rgb_to_lab", image, _to_lab)


def lab_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_lab`; colours that a display lacks lie outside 0 to 1."""
    return _converted("lab_to_rgb", image, _from_lab)


def rgb_to_luv(image: Tensor) -> Tensor:
    """CIE L*u*v*: lightness 0 to 100, and about -134 to 220 (CIE 15:2004, white D65)."""
    return _converted("rgb_to_luv", image, _to_luv)


def luv_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_luv`; colours that a display lacks lie outside 0 to 1."""
    return _converted("luv_to_rgb", image, _from_luv)


# --- television -----------------------------------------------------------------------------------


@elementwise
def _to_yuv(r: Any, g: Any, b: Any) -> Any:
    return _times(TO_YUV, r, g, b)


@elementwise
def _from_yuv(y: Any, u: Any, v: Any) -> Any:
    return _times(FROM_YUV, y, u, v)


@elementwise
def _to_ycbcr(r: Any, g: Any, b: Any) -> Any:
    y, blue, red = _times(TO_YCC, r, g, b)
    return y, blue + 0.5, red + 0.5


@elementwise
def _from_ycbcr(y: Any, blue: Any, red: Any) -> Any:
    return _times(FROM_YCC, y, blue - 0.5, red - 0.5)


def rgb_to_yuv(image: Tensor) -> Tensor:
    """Luma, 0.492 (B - Y) and 0.877 (R - Y) (BT.470)."""
    return _converted("rgb_to_yuv", image, _to_yuv)


def yuv_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_yuv`."""
    return _converted("yuv_to_rgb", image, _from_yuv)


def rgb_to_ycbcr(image: Tensor) -> Tensor:
    """Luma, and blue and red differences around 1/2, all 0 to 1, as JPEG files have them (T.871).
    """
    return _converted("rgb_to_ycbcr", image, _to_ycbcr)


def ycbcr_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`."""
    return _converted("ycbcr_to_rgb", image, _from_ycbcr)
