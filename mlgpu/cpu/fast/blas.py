"""NumPy's BLAS, called from compiled loops: products without the interpreter in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mlgpu.cpu.fast.compiler import inlined

__all__ = ["multiply"]

_ROW_MAJOR, _AS_IT_IS, _TURNED = 101, 111, 112  # CBLAS's names for them
_typed: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


@_typed
def _gemm(context: Any, function: Any, a_order: Any, b_order: Any, m: Any, n: Any, k: Any,
          alpha: Any, a: Any, a_row: Any, b: Any, b_row: Any, beta: Any, out: Any, out_row: Any
          ) -> Any:
    """cblas_?gemm at address `function`; matrices by the addresses of their first elements."""
    enum, whole, place = types.int32, types.int64, types.uintp

    def call(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        number = context.get_value_type(alpha)
        short, long = ir.IntType(32), ir.IntType(64)
        array = number.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [
            short, short, short, long, long, long, number, array, long, array, long, number, array,
            long])
        function, a_order, b_order, m, n, k, alpha_, a, a_row, b, b_row, beta_, out, out_row = (
            operands)
        a, b, out = (builder.inttoptr(x, array) for x in (a, b, out))
        builder.call(builder.inttoptr(function, kind.as_pointer()), [
            ir.Constant(short, _ROW_MAJOR), a_order, b_order, m, n, k, alpha_, a, a_row, b, b_row,
            beta_, out, out_row])
        return context.get_dummy_value()

    return types.void(place, enum, enum, whole, whole, whole, alpha, place, whole, place, whole,
                      alpha, place, whole), call


@inlined
def multiply(function: int, a: Any, b: Any, out: Any, alpha: Any, beta: Any) -> None:
    """out = alpha a @ b + beta out.

    a and b have an axis along which elements are next to each other, out has them in its rows;
    alpha and beta are of their dtype.
    """
    item = out.itemsize
    (m, n), k = out.shape, a.shape[1]
    a_order, a_row = _AS_IT_IS, max(a.strides[0] // item, k)
    if a.strides[1] != item:
        a_order, a_row = _TURNED, max(a.strides[1] // item, m)
    b_order, b_row = _AS_IT_IS, max(b.strides[0] // item, n)
    if b.strides[1] != item:
        b_order, b_row = _TURNED, max(b.strides[1] // item, k)
    _gemm(function, a_order, b_order, m, n, k, alpha, a.ctypes.data, a_row, b.ctypes.data, b_row,
          beta, out.ctypes.data, max(out.strides[0] // item, n))
