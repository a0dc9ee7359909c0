"""Window functions under the names of torch.signal.windows: M points, symmetric unless told.

A window that is not symmetric (`sym=False`) is periodic: the first M points of a symmetric one of
M + 1.  All are computed in double precision and rounded once.  Unlike `mlgpu.hann_window` and its
kind, they are symmetric by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import Device
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.creation import tensor
from mlgpu.tensor import Tensor

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
           "general_hamming", "hamming", "hann", "kaiser", "nuttall"]


def _window(name: str, M: int, sym: bool, shape: Callable[[Any], Any], dtype: dtypes.dtype | None,
            device: Device | str | None, requires_grad: bool) -> Tensor:
    """shape(x) at M points x from -1 to 1, of which a periodic window lacks the last."""
    kind = _floating(name, M, dtype)
    # The upper half is the lower one mirrored, so that a symmetric window is so to the last bit.
    steps = M if M < 2 or not sym else M - 1
    place = np.arange(M)
    values = shape(2 * np.minimum(place, steps - place) / steps - 1) if M > 1 else np.ones(M)
    return tensor(values, dtype=kind, device=device, requires_grad=requires_grad)


class _WindowDTypeError(DTypeError, ValueError):
    """PyTorch's is a ValueError here."""


def _floating(name: str, M: int, dtype: dtypes.dtype | None) -> dtypes.dtype:
    """The window's dtype."""
    kind = dtypes.get_default_dtype() if dtype is None else dtype
    if kind not in (dtypes.float32, dtypes.float64):
        raise _WindowDTypeError(f"{name}: expected float32 or float64, got {kind.name}; convert "
                                "the window with .to()")
    if M < 0:
        raise ShapeError(f"{name}: M must not be negative, got {M}")
    return kind


def bartlett(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
             device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """1 - |x| for x from -1 to 1: a triangle that ends in 0."""
    return _window("bartlett", M, sym, lambda x: 1 - np.abs(x), dtype, device, requires_grad)


def general_cosine(M: int, *, a: Sequence[float], sym: bool = True,
                   dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                   requires_grad: bool = False) -> Tensor:
    """The sum of a[k] cos(k pi x) for x from -1 to 1.  ShapeError for no coefficients."""
    weights = [float(w) for w in a]
    if not weights:
        raise ShapeError("general_cosine: a must have at least one coefficient, got none")

    def shape(x: Any) -> Any:
        return sum(w * np.cos(k * np.pi * x) for k, w in enumerate(weights))

    return _window("general_cosine", M, sym, shape, dtype, device, requires_grad)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True,
                    dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                    requires_grad: bool = False) -> Tensor:
    """alpha + (1 - alpha) cos(pi x) for x from -1 to 1."""
    return general_cosine(M, a=(alpha, 1 - alpha), sym=sym, dtype=dtype, device=device,
                          requires_grad=requires_grad)


def hamming(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
            device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """0.54 + 0.46 cos(pi x) for x from -1 to 1."""
    return general_hamming(M, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def hann(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
         device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """(1 + cos(pi x)) / 2 for x from -1 to 1."""
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, device=device,
                           requires_grad=requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
             device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """0.42 + 0.5 cos(pi x) + 0.08 cos(2 pi x) for x from -1 to 1."""
    return general_cosine(M, a=(0.42, 0.5, 0.08), sym=sym, dtype=dtype, device=device,
                          requires_grad=requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
            device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """The four-term cosine window with sidelobes of at most -98 dB.

    A. H. Nuttall, Some windows with very good sidelobe behavior, IEEE Trans. ASSP 29 (1981).
    """
    return general_cosine(M, a=(0.3635819, 0.4891775, 0.1365995, 0.0106411), sym=sym, dtype=dtype,
                          device=device, requires_grad=requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: dtypes.dtype | None = None,
           device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """sin(pi (n + 1/2) / M) for n from 0 to M - 1, or as of M + 1 where periodic: no zeros."""
    span = M if sym or M < 2 else M + 1
    # In x from -1 to 1 over span - 1 steps, the argument's distance from pi / 2.
    return _window("cosine", M, sym, lambda x: np.cos(np.pi / 2 * x * (span - 1) / span), dtype,
                   device, requires_grad)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
                dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                requires_grad: bool = False) -> Tensor:
    """exp(-|n - center| / tau) for n from 0 to M - 1; the center is the middle unless given.

    tau is in samples.  ShapeError if it is not positive, or for a symmetric window with a center.
    """
    if not tau > 0:
        raise ShapeError(f"exponential: tau must be positive, got {tau}")
    if center is None:
        half = (M - 1 if sym or M < 2 else M) / 2
        return _window("exponential", M, sym, lambda x: np.exp(-np.abs(x) * half / tau), dtype,
                       device, requires_grad)
    if sym:
        raise ShapeError(f"exponential: a symmetric window has its center in the middle, got "
                         f"center={center}; pass sym=False")
    kind = _floating("exponential", M, dtype)
    return tensor(np.exp(-np.abs(np.arange(M) - center) / tau), dtype=kind, device=device,
                  requires_grad=requires_grad)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: dtypes.dtype | None = None,
             device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """exp(-(n - middle)^2 / (2 std^2)) for n from 0 to M - 1; std is in samples.

    ShapeError if std is not positive.
    """
    if not std > 0:
        raise ShapeError(f"gaussian: std must be positive, got {std}")
    half = (M - 1 if sym or M < 2 else M) / 2
    return _window("gaussian", M, sym, lambda x: np.exp(-0.5 * np.square(x * half / std)), dtype,
                   device, requires_grad)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: dtypes.dtype | None = None,
           device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - x^2)) / I0(beta) for x from -1 to 1; I0 is the modified Bessel function.

    ShapeError if beta is negative.
    """
    if not beta >= 0:
        raise ShapeError(f"kaiser: beta must not be negative, got {beta}")
    return _window("kaiser", M, sym,
                   lambda x: np.i0(beta * np.sqrt(np.maximum(0, 1 - x * x))) / np.i0(beta), dtype,
                   device, requires_grad)


_guard_module(globals())
