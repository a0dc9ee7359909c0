"""Complex numbers: building them, their parts, and real views of their memory.

`conj` computes at once (PyTorch marks a view and computes later), so `is_conj` is always False and
`resolve_conj` returns its argument.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import empty, empty_like, zeros
from mlgpu.cuda import runtime as on_cuda
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.expr.graph import Expr, arg
from mlgpu.expr.lower import TENSOR, Operand, Program, lower
from mlgpu.op import Op, ViewOp, run
from mlgpu.tensor import Tensor

__all__ = ["complex", "conj", "conj_physical", "imag", "is_complex", "is_conj", "is_neg", "polar",
           "real", "resolve_conj", "resolve_neg", "view_as_complex", "view_as_real"]


class MakeComplex(Op):
    """real + i imag."""

    name = "complex"

    def forward(self, real: Any, imag: Any) -> Any:
        dtype = np.result_type(real.dtype, np.complex64)
        out = empty(np.broadcast_shapes(real.shape, imag.shape), dtype)
        out.real, out.imag = real, imag
        return out

    def forward_cuda(self, real: Any, imag: Any) -> Any:
        from mlgpu.cuda.copy import copy_into

        shape = np.broadcast_shapes(real.shape, imag.shape)
        out = on_cuda.empty(shape, np.result_type(real.dtype, np.complex64))
        copy_into(out.real, real)
        copy_into(out.imag, imag)
        return out

    def backward(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        return real(dy), imag(dy)


class Real(ViewOp):
    """The real parts, as a view."""

    def forward(self, x: Any) -> Any:
        return x.real

    def backward(self, dy: Tensor) -> Tensor:
        return dy  # the engine makes it complex


class Imag(ViewOp):
    """The imaginary parts, as a view."""

    def forward(self, x: Any) -> Any:
        return x.imag

    def backward(self, dy: Tensor) -> Tensor:
        return run(MakeComplex(), dy.new_zeros(()), dy)  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Any) -> Any:
        dx = zeros(dy.shape, np.result_type(dy.dtype, np.complex64))
        dx.imag = dy
        return dx


class Conj(Op):
    """The complex conjugate."""

    def forward(self, x: Any) -> Any:
        return np.conjugate(x, out=empty_like(x))

    def forward_cuda(self, x: Any) -> Any:
        from mlgpu.cuda.evaluate import evaluate

        out = on_cuda.empty_like(x)
        evaluate(_conj(x.dtype), (x,), (out,))
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return run(Conj(), dy)  # type: ignore[no-any-return]


@cache
def _conj(dtype: Any) -> Program:
    kind = dtypes.from_numpy(dtype)
    return lower("conj", (Expr("conj", (arg(0),)),), [Operand(kind, TENSOR)], [kind])


class ViewAsReal(ViewOp):
    """Real and imaginary part along a new last dimension."""

    def forward(self, x: Any) -> Any:
        return x[..., None].view(x.real.dtype)

    def backward(self, dy: Tensor) -> Tensor:
        return view_as_complex(dy.contiguous())


class ViewAsComplex(ViewOp):
    """The last dimension's two numbers as one complex number."""

    def forward(self, x: Any) -> Any:
        if not x.size:
            x = empty(x.shape, x.dtype)  # whose strides are in order, which x's need not be
        return x.view(np.result_type(x.dtype, np.complex64))[..., 0]

    def forward_cuda(self, x: Any) -> Any:
        return self.forward(x) if x.size else on_cuda.empty(
            x.shape[:-1], np.result_type(x.dtype, np.complex64))

    def backward(self, dy: Tensor) -> Tensor:
        return view_as_real(dy)


def _check_parts(op: str, first: Tensor, second: Tensor) -> None:
    for part in (first, second):
        if part.dtype not in (dtypes.float32, dtypes.float64):
            raise DTypeError(f"{op}: both parts must be float32 or float64, got "
                             f"{part.dtype.name}; convert with .to()")
    if first.dtype is not second.dtype:
        raise DTypeError(f"{op}: both parts must have one dtype, got {first.dtype.name} and "
                         f"{second.dtype.name}")
    try:
        np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        raise ShapeError(f"{op}: shapes must broadcast, got {tuple(first.shape)} and "
                         f"{tuple(second.shape)}") from None


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """real + i imag, after broadcasting; complex64 from float32, complex128 from float64."""
    _check_parts("complex", real, imag)
    return run(MakeComplex(), real, imag)  # type: ignore[no-any-return]


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """abs * (cos(angle) + i sin(angle)), after broadcasting; float32 or float64."""
    _check_parts("polar", abs, angle)
    return complex(abs * angle.cos(), abs * angle.sin())


def real(input: Tensor) -> Tensor:
    """The real parts as a view; a real tensor is returned as it is."""
    return run(Real(), input) if input.is_complex() else input


def imag(input: Tensor) -> Tensor:
    """The imaginary parts as a view.  Raises DTypeError for a real tensor."""
    if not input.is_complex():
        raise DTypeError(f"imag: expected a complex tensor, got {input.dtype.name}")
    return run(Imag(), input)  # type: ignore[no-any-return]


def set_real(self: Tensor, value: Any) -> None:
    """`x.real = value`: overwrite the real parts, in place."""
    real(self)[...] = value


def set_imag(self: Tensor, value: Any) -> None:
    """`x.imag = value`: overwrite the imaginary parts, in place."""
    imag(self)[...] = value


def conj(input: Tensor) -> Tensor:
    """The complex conjugate in fresh memory; a real tensor is returned as it is."""
    return run(Conj(), input) if input.is_complex() else input


conj_physical = conj


def resolve_conj(input: Tensor) -> Tensor:
    """`input` itself: conjugation is never pending."""
    return input


def resolve_neg(input: Tensor) -> Tensor:
    """`input` itself: negation is never pending."""
    return input


def is_conj(input: Tensor) -> bool:
    """False: conjugation is never pending."""
    return False


def is_neg(input: Tensor) -> bool:
    """False: negation is never pending."""
    return False


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is complex."""
    return input.is_complex()


def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor's memory as real numbers: (...) to (..., 2), a view."""
    if not input.is_complex():
        raise DTypeError(f"view_as_real: expected a complex tensor, got {input.dtype.name}")
    return run(ViewAsReal(), input)  # type: ignore[no-any-return]


def chalf(self: Tensor, memory_format: Any = None) -> Tensor:
    """DTypeError: there is no complex dtype of half types."""
    raise DTypeError("chalf: complex32 is not supported, in which PyTorch itself computes little; "
                     "use .cfloat()")


def view_as_complex(input: Tensor) -> Tensor:
    """Pairs of real numbers as complex ones: (..., 2) to (...), a view.

    Raises DTypeError unless float32 or float64, ShapeError where the memory does not hold pairs:
    the last dimension must have length 2 and stride 1, the other strides and the offset be even.
    """
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise DTypeError("view_as_complex: expected float32 or float64, got "
                         f"{input.dtype.name}")
    if input.ndim == 0 or input.shape[-1] != 2:
        raise ShapeError("view_as_complex: the last dimension must have length 2, got shape "
                         f"{tuple(input.shape)}")
    strides = input.stride()
    if input.numel() and (strides[-1] != 1 or any(s % 2 for s in strides[:-1])
                          or input.storage_offset() % 2):
        raise ShapeError("view_as_complex: pairs must lie together, at even strides and offset, "
                         f"got strides {strides} and offset {input.storage_offset()}; use "
                         "contiguous() first")
    return run(ViewAsComplex(), input)  # type: ignore[no-any-return]
