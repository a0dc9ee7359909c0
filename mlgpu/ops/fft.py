"""Discrete Fourier transforms.

Three operations, closed under differentiation: `FftC2C` over several dimensions, `FftR2C` and
`FftC2R` over one.  Each fits its input to the transform's lengths (zeros or a cut at the end), and
its result to given lengths, so that the adjoint of each is one of the three again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import copy, empty, zeros
from mlgpu.cuda import copy as cuda_copy
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.device import Device
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.complex import conj
from mlgpu.ops.creation import tensor
from mlgpu.tensor import Tensor

__all__ = ["fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2",
           "ifftn", "ifftshift", "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft",
           "rfft2", "rfftfreq", "rfftn"]

Sizes = Sequence[int] | int | None
Norm = Literal["backward", "ortho", "forward"]

# The adjoint of a transform is the opposite one with this normalisation.
_ADJOINT_NORM: dict[Any, Norm] = {
    "backward": "forward", "ortho": "ortho", "forward": "backward"}
_REVERSED_NORM: dict[Any, Norm] = {None: "forward", **_ADJOINT_NORM}


def fitted(x: Any, dims: Sequence[int], sizes: Sequence[int],
           zeros: Callable[..., Any] = zeros, copy_into: Callable[..., Any] = np.copyto) -> Any:
    """`x` cut, or extended with zeros, to `sizes` along `dims`; itself if it fits."""
    shape = list(x.shape)
    for dim, size in zip(dims, sizes, strict=True):
        shape[dim] = size
    if shape == list(x.shape):
        return x
    out = zeros(shape, x.dtype)
    common = tuple(slice(min(n, m)) for n, m in zip(shape, x.shape, strict=True))
    copy_into(out[common], x[common])
    return out


def fitted_cuda(x: Any, dims: Sequence[int], sizes: Sequence[int]) -> Any:
    """As `fitted`, of device arrays."""
    return fitted(x, dims, sizes, cuda_runtime.zeros, cuda_copy.copy_into)


class FftC2C(Op):
    """The complex transform over `dims` of the given lengths, its result fitted to `kept`."""

    def __init__(self, dims: tuple[int, ...], lengths: tuple[int, ...], kept: tuple[int, ...],
                 inverse: bool, norm: Norm) -> None:
        self.dims, self.lengths, self.kept = dims, lengths, kept
        self.inverse, self.norm = inverse, norm

    def forward(self, x: Any) -> Any:
        self.given = tuple(x.shape[d] for d in self.dims)
        x = fitted(x, self.dims, self.lengths)
        out = empty(x.shape, x.dtype)
        if not out.size:
            return fitted(out, self.dims, self.kept)
        transform = np.fft.ifft if self.inverse else np.fft.fft
        for dim in self.dims:
            transform(x, axis=dim, norm=self.norm, out=out)
            x = out
        return fitted(out, self.dims, self.kept)

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda import fft as on_cuda

        self.given = tuple(x.shape[d] for d in self.dims)
        x = fitted_cuda(x, self.dims, self.lengths)
        return fitted_cuda(on_cuda.c2c(self.name, x, self.dims, self.inverse, self.norm),
                              self.dims, self.kept)

    def backward(self, dy: Tensor) -> Tensor:
        return run(FftC2C(self.dims, self.lengths, self.given,  # type: ignore[no-any-return]
                          not self.inverse, _ADJOINT_NORM[self.norm]), dy)


class FftR2C(Op):
    """The first n // 2 + 1 coefficients of a real transform, fitted to `kept`.

    With `doubled`, those that stand for two conjugate coefficients count twice.
    """

    def __init__(self, dim: int, length: int, kept: int, norm: Norm, doubled: bool = False) -> None:
        self.dim, self.length, self.kept = dim, length, kept
        self.norm, self.doubled = norm, doubled

    def forward(self, x: Any) -> Any:
        self.given = x.shape[self.dim]
        x = fitted(x, [self.dim], [self.length])
        shape = list(x.shape)
        shape[self.dim] = self.length // 2 + 1
        out = empty(shape, np.result_type(x.dtype, np.complex64))
        if out.size:
            np.fft.rfft(x, axis=self.dim, norm=self.norm, out=out)
        if self.doubled:
            _scale_pairs(out, self.dim, self.length, 2)
        return fitted(out, [self.dim], [self.kept])

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda import fft as on_cuda

        self.given = x.shape[self.dim]
        out = on_cuda.r2c(self.name, fitted_cuda(x, [self.dim], [self.length]), self.dim,
                          np.result_type(x.dtype, np.complex64), self.norm)
        if self.doubled:
            out = on_tensors(lambda x: _pairs_scaled(x, self.dim, self.length, 2), out)
        return fitted_cuda(out, [self.dim], [self.kept])

    def backward(self, dy: Tensor) -> Tensor:
        return run(FftC2R(self.dim, self.length, self.given,  # type: ignore[no-any-return]
                          _ADJOINT_NORM[self.norm], not self.doubled), dy)


class FftC2R(Op):
    """The real inverse transform of n // 2 + 1 coefficients, fitted to `kept`.

    With `halved`, those that stand for two conjugate coefficients count half.
    """

    def __init__(self, dim: int, length: int, kept: int, norm: Norm, halved: bool = False) -> None:
        self.dim, self.length, self.kept = dim, length, kept
        self.norm, self.halved = norm, halved

    def forward(self, x: Any) -> Any:
        self.given = x.shape[self.dim]
        half = fitted(x, [self.dim], [self.length // 2 + 1])
        if self.halved:
            half = copy(half) if half is x else half
            _scale_pairs(half, self.dim, self.length, 0.5)
        shape = list(x.shape)
        shape[self.dim] = self.length
        out = empty(shape, x.real.dtype)
        if out.size:
            np.fft.irfft(half, self.length, axis=self.dim, norm=self.norm, out=out)
        return fitted(out, [self.dim], [self.kept])

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda import fft as on_cuda

        self.given = x.shape[self.dim]
        half = fitted_cuda(x, [self.dim], [self.length // 2 + 1])
        if self.halved:
            half = on_tensors(lambda x: _pairs_scaled(x, self.dim, self.length, 0.5), half)
        out = on_cuda.c2r(self.name, half, self.dim, self.length, self.norm)
        return fitted_cuda(out, [self.dim], [self.kept])

    def backward(self, dy: Tensor) -> Tensor:
        return run(FftR2C(self.dim, self.length, self.given,  # type: ignore[no-any-return]
                          _ADJOINT_NORM[self.norm], not self.halved), dy)


def _scale_pairs(half: Any, dim: int, length: int, factor: float) -> None:
    """Scale the coefficients that stand for two: all but the constant and, if there, Nyquist's."""
    middle = np.moveaxis(half, dim, -1)[..., 1:(length + 1) // 2]
    np.multiply(middle, factor, out=middle)


def _pairs_scaled(half: Tensor, dim: int, length: int, factor: float) -> Tensor:
    """A copy of `half` with what `_scale_pairs` does to it."""
    factors = half.new_ones(half.shape[dim], dtype=half.dtype.to_real())
    factors[1:(length + 1) // 2].fill_(factor)
    shape = [1] * half.ndim
    shape[dim] = -1
    return half * factors.reshape(shape)


# --- arguments ------------------------------------------------------------------------------------


def _norm(op: str, norm: str | None) -> Norm:
    if norm is None:
        return "backward"
    if norm not in _ADJOINT_NORM:
        raise ShapeError(f"{op}: norm must be 'backward', 'ortho' or 'forward', got {norm!r}")
    return cast(Norm, norm)


def _check_float(op: str, input: Tensor) -> Tensor:
    """`input` in a dtype that transforms exist for: integers become the default dtype."""
    if input.dtype.kind in ("bool", "int"):
        return input.to(dtypes.get_default_dtype())
    if input.dtype is dtypes.float16 or input.dtype is dtypes.bfloat16:
        raise DTypeError(f"{op}: not defined for {input.dtype.name}; convert to float32 first")
    return input


def _as_complex(op: str, input: Tensor) -> Tensor:
    input = _check_float(op, input)
    return input if input.is_complex() else input.to(input.dtype.to_complex())


def _as_real(op: str, input: Tensor) -> Tensor:
    if input.is_complex():
        raise DTypeError(f"{op}: expected a real tensor, got {input.dtype.name}; use .real, or a "
                         "complex transform")
    return _check_float(op, input)


def _dim(op: str, input: Tensor, dim: int) -> int:
    if not -input.ndim <= dim < input.ndim:
        raise IndexError(f"{op}: dimension out of range: {dim} for a tensor with {input.ndim} "
                         "dimensions")
    return dim % input.ndim


def _length(op: str, n: int) -> int:
    if n < 1:
        raise ShapeError(f"{op}: needs at least 1 data point, got {n}")
    return n


def _plan(op: str, input: Tensor, s: Sizes, dim: Sizes,
          ) -> tuple[tuple[int, ...], list[int | None]]:
    """The dimensions to transform and their lengths (None: as they are)."""
    sizes = None if s is None else [s] if isinstance(s, int) else list(s)
    if dim is not None:
        dims = [_dim(op, input, d) for d in ([dim] if isinstance(dim, int) else dim)]
    else:
        if sizes is not None and len(sizes) > input.ndim:
            raise ShapeError(f"{op}: s has {len(sizes)} values, but the tensor has {input.ndim} "
                             "dimensions")
        dims = list(range(input.ndim - (input.ndim if sizes is None else len(sizes)), input.ndim))
    if len(set(dims)) != len(dims):
        raise ShapeError(f"{op}: dimensions must be unique, got {dim}")
    if sizes is not None and len(sizes) != len(dims):
        raise ShapeError(f"{op}: s and dim must have one length, got {s} and {dim}")
    lengths: list[int | None] = [None if n == -1 else n for n in sizes or [-1] * len(dims)]
    return tuple(dims), lengths


def _c2c(op: str, input: Tensor, dims: tuple[int, ...], lengths: Sequence[int | None],
         inverse: bool, norm: str | None) -> Tensor:
    norm = _norm(op, norm)
    input = _as_complex(op, input)
    full = tuple(_length(op, input.shape[d] if n is None else n)
                 for d, n in zip(dims, lengths, strict=True))
    if not dims:
        return input.clone()
    return run(FftC2C(dims, full, full, inverse, norm), input)  # type: ignore[no-any-return]


def _r2c(op: str, input: Tensor, dim: int, n: int | None, norm: str | None) -> Tensor:
    norm = _norm(op, norm)
    input = _as_real(op, input)
    length = _length(op, input.shape[dim] if n is None else n)
    return run(FftR2C(dim, length, length // 2 + 1, norm), input)  # type: ignore[no-any-return]


def _c2r(op: str, input: Tensor, dim: int, n: int | None, norm: str | None) -> Tensor:
    norm = _norm(op, norm)
    input = _as_complex(op, input)
    length = _length(op, 2 * (input.shape[dim] - 1) if n is None else n)
    return run(FftC2R(dim, length, length, norm), input)  # type: ignore[no-any-return]


# --- one dimension --------------------------------------------------------------------------------


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The discrete Fourier transform along `dim`, of `n` points (cut or zero-padded).

    norm: "backward" (no factor, the default), "ortho" (1/sqrt(n)) or "forward" (1/n).  Real input
    is made complex.  Raises ShapeError for n < 1, DTypeError for half types.
    """
    return _c2c("fft", input, (_dim("fft", input, dim),), [n], False, norm)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `fft`; here norm="backward" means the factor 1/n, "forward" none."""
    return _c2c("ifft", input, (_dim("ifft", input, dim),), [n], True, norm)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The first n // 2 + 1 coefficients of the `fft` of a real tensor; the others mirror them."""
    return _r2c("rfft", input, _dim("rfft", input, dim), n, norm)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `rfft`: n // 2 + 1 coefficients to n real values (default n even)."""
    return _c2r("irfft", input, _dim("irfft", input, dim), n, norm)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The real `fft` of a Hermitian-symmetric signal, given by its first n // 2 + 1 values."""
    _norm("hfft", norm)
    return _c2r("hfft", conj(input), _dim("hfft", input, dim), n, _REVERSED_NORM[norm])


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `hfft`: n real values to n // 2 + 1 complex ones."""
    _norm("ihfft", norm)
    return conj(_r2c("ihfft", input, _dim("ihfft", input, dim), n, _REVERSED_NORM[norm]))


# --- several dimensions ---------------------------------------------------------------------------

def fftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """`fft` over the dimensions `dim` (default: all, or the last len(s)), of lengths `s`."""
    dims, lengths = _plan("fftn", input, s, dim)
    return _c2c("fftn", input, dims, lengths, False, norm)


def ifftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of `fftn`."""
    dims, lengths = _plan("ifftn", input, s, dim)
    return _c2c("ifftn", input, dims, lengths, True, norm)


def _plan_real(op: str, input: Tensor, s: Sizes,
               dim: Sizes) -> tuple[tuple[int, ...], list[int | None]]:
    dims, lengths = _plan(op, input, s, dim)
    if not dims:
        raise ShapeError(f"{op}: must transform at least one dimension")
    return dims, lengths


def rfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """`rfft` over the last of the dimensions `dim`, then `fft` over the others."""
    dims, lengths = _plan_real("rfftn", input, s, dim)
    half = _r2c("rfftn", input, dims[-1], lengths[-1], norm)
    return half if len(dims) == 1 else _c2c("rfftn", half, dims[:-1], lengths[:-1], False, norm)


def irfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of `rfftn`; give `s` where the last length is odd."""
    dims, lengths = _plan_real("irfftn", input, s, dim)
    if len(dims) > 1:
        input = _c2c("irfftn", input, dims[:-1], lengths[:-1], True, norm)
    return _c2r("irfftn", input, dims[-1], lengths[-1], norm)


def hfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """`hfft` over the last of the dimensions `dim`, after `fft` over the others."""
    dims, lengths = _plan_real("hfftn", input, s, dim)
    if len(dims) > 1:
        input = _c2c("hfftn", input, dims[:-1], lengths[:-1], False, norm)
    _norm("hfftn", norm)
    return _c2r("hfftn", conj(input), dims[-1], lengths[-1], _REVERSED_NORM[norm])


def ihfftn(input: Tensor, s: Sizes = None, dim: Sizes = None, norm: str | None = None) -> Tensor:
    """The inverse of `hfftn`."""
    dims, lengths = _plan_real("ihfftn", input, s, dim)
    _norm("ihfftn", norm)
    half = conj(_r2c("ihfftn", input, dims[-1], lengths[-1], _REVERSED_NORM[norm]))
    return half if len(dims) == 1 else _c2c("ihfftn", half, dims[:-1], lengths[:-1], True, norm)


def fft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1), norm: str | None = None) -> Tensor:
    """`fftn` over two dimensions."""
    return fftn(input, s, dim, norm)


def ifft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1), norm: str | None = None) -> Tensor:
    """`ifftn` over two dimensions."""
    return ifftn(input, s, dim, norm)


def rfft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1), norm: str | None = None) -> Tensor:
    """`rfftn` over two dimensions."""
    return rfftn(input, s, dim, norm)


def irfft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1),
           norm: str | None = None) -> Tensor:
    """`irfftn` over two dimensions."""
    return irfftn(input, s, dim, norm)


def hfft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1), norm: str | None = None) -> Tensor:
    """`hfftn` over two dimensions."""
    return hfftn(input, s, dim, norm)


def ihfft2(input: Tensor, s: Sizes = None, dim: Sizes = (-2, -1),
           norm: str | None = None) -> Tensor:
    """`ihfftn` over two dimensions."""
    return ihfftn(input, s, dim, norm)


# --- frequencies ----------------------------------------------------------------------------------


def fftfreq(n: int, d: float = 1.0, *, dtype: dtypes.dtype | None = None,
            device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of `fft`'s coefficients, in cycles per unit of the sample spacing d."""
    return _frequencies("fftfreq", np.fft.ifftshift(np.arange(-(n // 2), n - n // 2)), n * d, dtype,
                        device, requires_grad)


def rfftfreq(n: int, d: float = 1.0, *, dtype: dtypes.dtype | None = None,
             device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of `rfft`'s coefficients, in cycles per unit of the sample spacing d."""
    return _frequencies("rfftfreq", np.arange(n // 2 + 1), n * d, dtype, device, requires_grad)


def _frequencies(op: str, cycles: Any, duration: float, dtype: dtypes.dtype | None,
                 device: Device | str | None, requires_grad: bool) -> Tensor:
    kind = dtypes.get_default_dtype() if dtype is None else dtype
    if kind.kind in ("bool", "int"):
        raise DTypeError(f"{op}: expected a floating or complex dtype, got {kind.name}")
    with np.errstate(all="ignore"):
        values = cycles / np.float64(duration)
    return tensor(values, dtype=kind, device=device, requires_grad=requires_grad)


def fftshift(input: Tensor, dim: Sizes = None) -> Tensor:
    """Coefficients reordered so that frequency 0 stands in the middle of each `dim`."""
    dims = _shift_dims("fftshift", input, dim)
    return input.roll([input.shape[d] // 2 for d in dims], dims) if dims else input


def ifftshift(input: Tensor, dim: Sizes = None) -> Tensor:
    """The inverse of `fftshift`."""
    dims = _shift_dims("ifftshift", input, dim)
    return input.roll([(input.shape[d] + 1) // 2 for d in dims], dims) if dims else input


def _shift_dims(op: str, input: Tensor, dim: Sizes) -> list[int]:
    if dim is None:
        return list(range(input.ndim))
    return [_dim(op, input, d) for d in ([dim] if isinstance(dim, int) else dim)]
