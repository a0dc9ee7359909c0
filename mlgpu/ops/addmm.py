"""beta * input + alpha * (a @ b) and its relatives; one rounding, also for half types."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast, gemm, scale, widen
from mlgpu.cuda import gemm as cuda_gemm
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import on_tensors, run
from mlgpu.ops.matmul import MatMul, check_dims, check_product, check_same_dtype
from mlgpu.tensor import Tensor

__all__ = ["addbmm", "addmm", "addmv", "addr", "baddbmm"]


class AddMatMul(MatMul):
    """beta * summand + alpha * (a @ b); with beta 0 the summand is not looked at."""

    left = 1

    def __init__(self, beta: complex, alpha: complex) -> None:
        self.beta = beta
        self.alpha = alpha

    def forward(self, summand: Any, a: Any, b: Any) -> Any:  # type: ignore[override]
        self.rows_fold = False
        out = gemm(widen(a), widen(b))
        if self.alpha != 1:
            np.multiply(out, _factor(self.alpha, out.dtype), out=out)
        if self.beta != 0:
            np.add(out, scale(widen(summand), _factor(self.beta, out.dtype)), out=out)
        return cast(out, a.dtype)

    def forward_cuda(self, summand: Any, a: Any, b: Any) -> Any:  # type: ignore[override]
        self.rows_fold = False
        return cuda_gemm.gemm(a, b, bias=summand if self.beta != 0 else None, alpha=self.alpha,
                              beta=self.beta)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        scaled = dy if self.alpha == 1 else dy * self.alpha.conjugate()
        dsummand = dy if self.beta == 1 else dy * self.beta.conjugate()
        return dsummand, *self.factor_gradients(scaled)

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        scaled = scale(dy, self.alpha.conjugate())
        dsummand = scale(dy, self.beta.conjugate()) if self.needs[0] else None
        return dsummand, *self.factor_gradients_cpu(scaled)

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        dsummand = None
        if self.needs[0]:
            factor = self.beta.conjugate()
            dsummand = dy if factor == 1 else on_tensors(lambda dy: dy * factor, dy)
        return dsummand, *self.factor_gradients_cuda(dy, self.alpha.conjugate())


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: complex = 1,
          alpha: complex = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2): (n, k) and (k, m) to (n, m); `input` is expanded.

    With beta = 0 `input` is ignored, NaN included.  Raises DTypeError for different dtypes and for
    a fractional beta or alpha with integers, ShapeError for shapes that do not fit.
    """
    check_dims("addmm", mat1=(mat1, 2), mat2=(mat2, 2))
    return _add_product("addmm", input, mat1, mat2, beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: complex = 1,
          alpha: complex = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec): (n, k) and (k,) to (n,); see `addmm`."""
    check_dims("addmv", mat=(mat, 2), vec=(vec, 1))
    column = input.unsqueeze(-1) if input.ndim else input
    return _add_product("addmv", column, mat, vec.unsqueeze(1), beta, alpha).squeeze(1)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: complex = 1,
            alpha: complex = 1) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2): (b, n, k) and (b, k, m) to (b, n, m)."""
    _check_batches("baddbmm", batch1, batch2)
    return _add_product("baddbmm", input, batch1, batch2, beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: complex = 1,
           alpha: complex = 1) -> Tensor:
    """beta * input + alpha * the sum over b of batch1[b] @ batch2[b]: to (n, m)."""
    _check_batches("addbmm", batch1, batch2)
    # The sum over the batch is one product of matrices laid side by side.
    count, rows, depth = batch1.shape
    wide = batch1.transpose(0, 1).reshape(rows, count * depth)
    tall = batch2.reshape(count * depth, batch2.shape[-1])
    return _add_product("addbmm", input, wide, tall, beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: complex = 1,
         alpha: complex = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2), with type promotion; bool means and / or."""
    check_dims("addr", vec1=(vec1, 1), vec2=(vec2, 1))
    dtype = dtypes.result_type(input, vec1, vec2)
    input, vec1, vec2 = input.to(dtype), vec1.to(dtype), vec2.to(dtype)
    if dtype.kind != "bool":
        return _add_product("addr", input, vec1.unsqueeze(1), vec2.unsqueeze(0), beta, alpha)
    _check_scale("addr", dtype, beta, alpha)
    outer = vec1.unsqueeze(1) & vec2.unsqueeze(0) & bool(alpha)
    return outer | input.expand(outer.shape) if beta else outer


def _check_batches(op: str, batch1: Tensor, batch2: Tensor) -> None:
    check_dims(op, batch1=(batch1, 3), batch2=(batch2, 3))
    if batch1.shape[0] != batch2.shape[0]:
        raise ShapeError(f"{op}: both must hold the same number of matrices, got shapes "
                         f"{tuple(batch1.shape)} and {tuple(batch2.shape)}")
    check_product(op, batch1, batch2)


def _factor(factor: complex, dtype: Any) -> Any:
    """A negative factor of an unsigned dtype counts modulo its range."""
    return np.asarray(factor).astype(dtype) if dtype.kind == "u" else factor


def _check_scale(op: str, dtype: dtypes.dtype, beta: complex, alpha: complex) -> None:
    for name, factor in (("beta", beta), ("alpha", alpha)):
        if dtypes.scalar_dtype(factor).category > max(dtype.category, 1):
            raise DTypeError(f"{op}: {name} must not be of a higher kind than {dtype.name}, "
                             f"got {factor!r}")
        if dtype.kind == "int":
            limits = dtypes.iinfo(dtype)
            least = limits.min or -limits.max  # an unsigned dtype takes it modulo its range
            if not least <= factor <= limits.max:  # type: ignore[operator]
                raise DTypeError(f"{op}: {name} must fit {dtype.name}, got {factor!r}")


def _add_product(op: str, summand: Tensor, a: Tensor, b: Tensor, beta: complex,
                 alpha: complex) -> Tensor:
    check_same_dtype(op, summand, a, b)
    check_product(op, a, b)
    _check_scale(op, a.dtype, beta, alpha)
    shape = (*a.shape[:-1], b.shape[-1])
    if summand.shape != shape:
        try:
            fits = np.broadcast_shapes(summand.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"{op}: input must expand to the product's shape {shape}, got "
                             f"{tuple(summand.shape)}")
    return run(AddMatMul(beta, alpha), summand, a, b)  # type: ignore[no-any-return]
